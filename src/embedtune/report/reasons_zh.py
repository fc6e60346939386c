"""In Chinese, what English has from where it is made: health flags and reasons of the verdict."""

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    "flag.broken-test-set": "最好的未微调系统 nDCG@10 只有 {best}，随机水平是 {chance}："
    "测试集有问题，问题或标注与段落对不上",
    "flag.unsuitable-base": "基座接近随机水平（nDCG@10 为 {base}，随机水平 {chance}），"
    "而别的系统要好得多：换一个基座会更好",
    "flag.few-queries": "只有 {queries} 个测试问题；不足 50 个时不能据此上线",
    "flag.copied-queries": "{share} 的问题与所对应的段落有连续 8 个单词或 12 个汉字相同；"
    "真实问题不会这样，"
    "因此这些数字偏袒 BM25，参考价值有限",
    "flag.leakage": "{queries} 个测试问题中有 {affected} 个，其段落在训练集里有近似重复；"
    "相关训练样本已剔除",
    "flag.leakage.blocks": "{queries} 个测试问题中有 {affected} 个，其段落在训练集里有近似重复，"
    "而且模型用它们训练过：数字偏高",
    "flag.unknown-tokens": "模型读不懂{language}文本：{share} 的 token 不在分词器的词表里，"
    "在模型看来都一样",
    "flag.cut-texts": "模型看不到 {share} 的{language}文本的结尾：超出了它的长度上限，请把段落切短",
    "reason.ship": "{candidate} 可以上线：检索效果优于 {base}，{metric} 为 {a}（{base} 为 {b}），"
    "提升 {gain}（95% 置信区间 {low} 至 {high}，{groups} 个文档组、{queries} 个问题）。",
    "reason.ship-hybrid": "{candidate} 与 BM25 混合上线：{metric} 为 {a}，显著高于单独使用 "
    "{candidate}"
    "（{b}）、单独使用 BM25（{c}）以及 {base} 加 BM25（{d}）。",
    "reason.worse": "{candidate} 不要上线：它不如 {base}，{metric} 为 {a}（{base} 为 {b}），下降 "
    "{loss}"
    "（95% 置信区间 {low} 至 {high}，{groups} 个文档组、{queries} 个问题）。",
    "reason.bm25-wins": "{candidate} 不要上线：BM25 更好，{metric} 为 {c}，而 {candidate} 为 {a}，"
    "两种混合检索中较好的为 {best_hybrid}。",
    "reason.untuned": "没有训练模型：{base} 保持原样，{metric} 为 {b}。",
    "reason.same": "{candidate} 的排序与 {base} 完全一样，没有可以上线的东西。",
    "reason.no-gain": "没有证明 {candidate} 优于 {base}：{metric} 为 {a}（{base} 为 {b}），差异 "
    "{gain}"
    "（95% 置信区间 {low} 至 {high}，{groups} 个文档组、{queries} 个问题）。",
    "reason.small-gain": "{candidate} 比 {base} 高 {gain} {metric}（95% 置信区间 {low} 至 {high}，"
    "{groups} 个文档组、{queries} 个问题），不到值得更换的 {min_gain}。",
    "reason.test-disagrees": "提升的置信区间在零以上，但只有 {groups} 个文档组时，"
    "随机化检验也必须同意，"
    "而它没有（Holm 校正后 p = {p}）。",
    "reason.below-bm25": "单独使用 BM25 就优于 {candidate}：{metric} 为 {c}，后者为 {a}；"
    "也没有证明混合检索优于两者。",
    "reason.probe-lost": "模型遗忘了太多通用能力。通用测试 {probe}：nDCG@10 之前 {before}，之后 "
    "{after}"
    "（{asked} 个问题）；损失 {lost}（{low} 至 {high}），超过允许的 {allowed}。",
    "reason.probe-chance": "通用测试 {probe}：nDCG@10 之前 {before}，之后 {after}（{asked} "
    "个问题）；"
    "损失 {lost}（{low} 至 {high}），仍可能没有超过允许的 {allowed}。",
    "reason.probe-kept": "通用测试 {probe}：nDCG@10 之前 {before}，之后 {after}（{asked} 个问题）；"
    "没有遗忘重要的东西。",
    "reason.probe-uncounted": "通用测试 {probe} 不计入：基座得分 {before}（{asked} 个问题），"
    "只有在 {counts_from} 到 {counts_to} 之间才看得出损失。",
    "reason.no-probe": "没有测量模型在别处可能遗忘了什么（没有做通用测试）。",
    "reason.few-groups": "测试问题只来自 {groups} 个文档组；不足 {min_groups} 组时一律不上线，"
    "达到 {sure} 组更有把握。",
    "reason.smallest": "这个测试集大约能证明 {smallest} 以上的提升："
    "更小的提升有五分之一以上的可能被漏掉。",
    "reason.settle": "如果差异保持不变，{needed} 个以上的测试问题就能下结论：还差 {more} 个，"
    "约需新增 {more_groups} 个与现有 {groups} 组同样大小的文档组。",
    "reason.settle-least": "观察到的差异小于值得更换的幅度；要证明 {min_gain} 的提升，"
    "需要 {needed} 个以上的测试问题：还差 {more} 个，约需新增 {more_groups} 个与现有 {groups} 组"
    "同样大小的文档组。",
    "reason.cannot-settle": "差异太小或太不稳定，任何现实数量的问题都无法下结论。",
    "reason.blocked": "只看数字本应是“{name}”，但这些数字不可靠：{flags}。",
    "reason.against": "与 {other} 相比：{gain} {metric}（95% 置信区间 {low} 至 {high}，"
    "{groups} 个文档组、{queries} 个问题）。",
    "reason.against-rival": "与最强对手 {other} 相比：{gain} {metric}（95% 置信区间 {low} 至 "
    "{high}，"
    "{groups} 个文档组、{queries} 个问题）。",
    "reason.base-hybrid": "不做任何微调，{base} 加 BM25 的 {metric} 为 {d}。",
    "reason.flag": "{message}。",
    "reason.flag-language": "{candidate} 不要用于{language}文本：{message}。结论只针对其余 "
    "{queries} 个问题。",
}
