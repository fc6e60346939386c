"""In Chinese, what English has from the audit: what was found in the data, and what to do."""

from collections.abc import Mapping

_WHAT = {"passage": "段落", "query": "问题", "text": "文本"}
_LEAKS = {
    "exact": "一字不差地出现在另一个划分里",
    "edited": "稍作改动后出现在另一个划分里",
    "contained": "（几乎）整段包含在另一个划分的文本里，或包含对方",
    "overlapping": "与另一个划分的文本有一段相同，就像重叠切分的窗口",
    "re-ordered": "打乱句子顺序后出现在另一个划分里",
}
_LEAK_ADVICE = {
    "passage": "把有共同文字的段落放在同一个划分；训练会剔除相关的训练问题，并同时给出两种数字",
    "query": "把相同的问题放在同一个划分",
    "text": "把相同和几乎相同的文本放在同一个划分，并从训练集里删去",
}

# by code: what was found (count, total, percent and the numbers are filled in), what to do
_BY_CODE: Mapping[str, tuple[str, str]] = {
    **{
        f"{what}-leak-{kind}": (
            f"{{total}} 个{name}中有 {{count}} 个（{{percent}}）{words}",
            _LEAK_ADVICE[what],
        )
        for what, name in _WHAT.items()
        for kind, words in _LEAKS.items()
    },
    "same-pair": (
        "{total} 条中有 {count} 条（{percent}）同时出现在两个划分里",
        "从其中一个划分里删去；训练和评测不接受这样的数据",
    ),
    "repeated-rows": ("{count} 行与同一划分中的另一行重复，已略去", ""),
    "duplicate-passages": (
        "{total} 个段落中有 {count} 个（{percent}）与另一个一字不差",
        "每种只留一个；挖掘负例和评测时，副本只算一次",
    ),
    "similar-passages": (
        "{total} 个段落中有 {count} 个（{percent}）只是另一个的改动版",
        "只留最新的版本",
    ),
    "duplicate-queries": (
        "{total} 个问题中有 {count} 个（{percent}）与另一个一字不差",
        "把它们的答案都归到一个问题下；任何一个都不会当作另一个的负例",
    ),
    "similar-queries": (
        "{total} 个问题中有 {count} 个（{percent}）只是另一个的改动版",
        "放在同一个划分里",
    ),
    "copied-queries": (
        "{total} 个问题中有 {count} 个（{percent}）与所对应的段落有连续 8 个单词或 12 个汉字相同",
        "换个说法：真实的问题很少照抄，这样的测试集偏袒按词检索，达到 30% 就不能据此上线",
    ),
    "one-document-crowds": (
        "{total} 个问题中有 {count} 个（{percent}）问的是同一份文档",
        "一份文档不会被拆到两个划分里：补充其他文档，或按章节划分",
    ),
    "one-label-crowds": (
        "{total} 条文本中有 {count} 条（{percent}）是同一个标签",
        "补充其他标签的文本，或略去一部分",
    ),
    "passages-without-queries": (
        "{total} 个段落中有 {count} 个（{percent}）没有问题，只作干扰项",
        "",
    ),
    "chance-level": (
        "随机排序在 {count} 个问题上的 nDCG@10 为 {ndcg@10:.3f}，hit@10 为 {hit@10:.3f}",
        "检索更多的段落：随机水平太高，就没有多少可测的了",
    ),
    "test-size": (
        "测试集有 {count} 个问题，五次中有四次能看出的最小 nDCG@10 提升为 {smallest_gain:.3f}",
        "补充关于其他文档的测试问题：问题少于 50 个或文档少于 10 份，几乎得不出结论",
    ),
    "different-scores": (
        "{total} 对文本中有 {count} 对（{percent}）有不同的分数",
        "每一对只定一个分数",
    ),
    "different-grades": (
        "{total} 对文本中有 {count} 对（{percent}）有不同的等级",
        "每一对只定一个等级",
    ),
    "positive-and-negative": (
        "{total} 个负例中有 {count} 个（{percent}）是同一问题的正例，或几乎就是",
        "删去它们；与正例相同的不会当作负例",
    ),
    "several-positives": (
        "{total} 个问题中有 {count} 个（{percent}）有不止一个相关段落；每个都算对，"
        "也不会当作彼此的负例",
        "",
    ),
    "one-label": (
        "所有文本都是同一个标签",
        "至少要有 2 个标签：文本要靠与其他标签的文本相区别来学习",
    ),
    "single-text-labels": (
        "{total} 个标签中有 {count} 个（{percent}）只有一条文本",
        "每个至少要 2 条，因为文本要和同标签的另一条一起学；补充，或删去这些行",
    ),
    "two-labels": (
        "{total} 条文本中有 {count} 条（{percent}）有几个标签",
        "只留一个，除非文本可以有几个",
    ),
    "labels-alike": ("有 {count} 个标签写法不一，各算一个标签", "每个标签只用一种写法"),
    "unjudged-copies": (
        "{total} 个问题中有 {count} 个（{percent}）还有未标注的段落与相关段落重复",
        "几乎相同的算对，也不会当作负例；其余的请标注，或删去副本",
    ),
    "unjudged-above": (
        "{total} 个问题中有 {count} 个（{percent}）有未标注的段落排在相关段落之前："
        "负例里至多有这么多是假的",
        "读几个：能回答问题的，标为相关；挖掘负例时留出余量",
    ),
    "cut-texts": (
        "{total} 条{language}文本中有 {count} 条（{percent}）超出模型的长度上限，{tokens_cut:.1%} "
        "的 token 读不到",
        "把段落切短，或换一个读得更长的模型",
    ),
    "unknown-tokens": (
        "{count} 条{language}文本中 {share:.0%} 的 token 是模型不认识的",
        "换一个懂这种语言的基础模型",
    ),
    "other-language": (
        "{total} 个问题中有 {count} 个（{percent}）与所对应的段落语言不同",
        "用户若真这样问就不必改；BM25 很难找到它们，基础模型要懂两种语言",
    ),
}
FINDINGS: Mapping[str, str] = {
    **{f"finding.{code}": message for code, (message, _) in _BY_CODE.items()},
    **{f"finding.{code}.do": advice for code, (_, advice) in _BY_CODE.items()},
}
