"""What the words of a query say: that it needs its passage at hand, that it was copied from it,
and whether another query asks the same."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from embedtune.language import HAN
from embedtune.queries.terms import han_words, terms_of
from embedtune.records import Chunk
from embedtune.similar import normalise

WORD_RUN, HAN_RUN = 6, 10  # a long n-gram: words, Chinese characters
RARE = 0.05  # share of the chunks; a term in fewer tells one fact from another

CONTEXT = re.compile(
    r"\b(?:according to|based on|in|from|of|by|does|do) (?:this|the|that|these) (?:above |given |"
    r"following |provided )?(?:passage|text|excerpt|paragraph|snippet|context|extract)s?\b"
    # "in the context of the law", "in the text field" need no passage
    r"(?!-| (?:of|for|box|boxes|fields?|files?|messages?|editor|area|layer|size|style|mode|format"
    r"|input|colou?r)\b)"
    r"|\b(?:according to|based on) (?:this|the|that) (?:document|article|author|source|table|figure"
    r"|(?:given |provided )?information(?= (?:above|provided|given)\b|\W*$))"
    r"|\bthe (?:author|writer|speaker)s? (?:say|state|mention|describe|suggest|argue)"
    r"|\b(?:mentioned|described|stated|listed|given|shown|discussed) (?:above|below|here|in the "
    r"(?:passage|text|table|figure|excerpt))\b|\bthe above\b"
    r"|\bthis (?:document|section|article|chapter|table|agreement|contract|policy|report|page)\b"
    r"|上述|前述|这段(?!时间|时期|期间|日子|路|距离)|此段(?!时间|时期|期间)"
    r"|(?:根据|依据|按照)(?:这|该|此|本|以上|上面)(?:篇|段|份|个|条)?(?:文|段|内容|材料|资料|条|规定|文件|文档)",
    re.IGNORECASE,
)
# these only where they are words of their own: 基本条件, 文本文件 and 网上表格 hold their signs
HAN_CONTEXT = re.compile(
    "本(?:文件|文档|文|条例|条|款|节|章|段|表|法|办法|规定|细则|合同|协议|报告|标准|制度|指南|手册)"
    "|该(?:文件|文档|文章|文|段|条款|条|款|表|合同|协议|规定|办法|法|标准)"
    "|文中|上文|下文|前款|上表|下表"
)

# words that turn a question round, and pairs of which one asks for the opposite of the other
NEGATIONS = frozenset((
    "not", "no", "never", "without", "cannot", "neither", "nor", "不", "没", "没有", "无", "未",
    "非", "不能", "不得", "不可", "不会", "不是", "不用", "禁止", "勿",
))  # fmt: skip
TURNING = frozenset((
    "before", "after", "above", "below", "under", "over", "more", "most", "less", "least", "fewer",
    "first", "last", "only", "except", "之前", "之后", "以前", "以后", "以上", "以下", "以内",
    "以外", "最多", "最少", "最大", "最小", "最高", "最低", "最早", "最晚", "第一", "最后", "仅",
    "只",
))  # fmt: skip
OPPOSITES = (
    ("from", "to"), ("in", "out"), ("on", "off"), ("up", "down"), "买卖", "甲乙", "男女", "进出",
    "入出", "上下", "内外", "前后", "大小", "多少", "高低", "早晚", "左右", "东西", "南北", "新旧",
    "收付", "增减", "升降", "开关", "借贷",
)  # fmt: skip
_CHOICE = re.compile(r"(.)[不没]\1")  # 能不能, 有没有: whether, no negation


def context_of(query: str) -> str:
    """The words by which a query points at a passage that its reader does not see."""
    if found := CONTEXT.search(query):
        return found[0]
    matches = list(HAN_CONTEXT.finditer(query))
    if matches:
        borders = {0, *accumulate(map(len, han_words(query)))}
        for match in matches:
            if {match.start(), match.end()} <= borders:
                return match[0]
    return ""


def copied_share(query: str, passage: str) -> float:
    """Share of a query's long n-grams (6 words or 10 Chinese characters) that stand in the
    passage; 0 for a query shorter than one."""
    own = _long_grams(query)
    return len(own & _long_grams(passage)) / len(own) if own else 0.0


def _long_grams(text: str) -> set[tuple[str, ...]]:
    items = re.findall(rf"[{HAN}]|(?:(?![{HAN}])[^\W_])+", normalise(text))
    han = [bool(re.match(f"[{HAN}]", item)) for item in items]
    # a gram's length follows its first item; names in Latin letters inside Chinese count as one
    return {
        tuple(items[start : start + length])
        for start in range(len(items))
        if start + (length := HAN_RUN if han[start] else WORD_RUN) <= len(items)
    }


# ---- the same question


@dataclass(frozen=True, slots=True)
class Wording:
    """What tells two questions apart: content words without endings, and words that turn it."""

    terms: frozenset[str]
    turns: frozenset[str]
    letters: frozenset[str]  # words of English, characters of Chinese


def wording_of(text: str) -> Wording:
    folded = normalise(text)
    words = set(re.findall(r"[^\W_]+(?:['’]t\b)?", folded))
    han = han_words(_CHOICE.sub(r"\1", folded)) if re.search(f"[{HAN}]", folded) else []
    turns = TURNING & {*words, *han}
    if NEGATIONS & {*words, *han} or any(word.endswith(("n't", "n’t")) for word in words):
        turns |= {"not"}
    return Wording(
        frozenset(map(_stem, terms_of(text))),
        frozenset(turns),
        frozenset(words) | frozenset(re.findall(f"[{HAN}]", folded)),
    )


def _stem(word: str) -> str:
    """An English word without the ending of its number or tense."""
    if not word.isascii() or not word.isalpha() or len(word) < 4:
        return word
    return re.sub(r"(?:ing|ed|es|s)$", "", word).rstrip("e") or word


def frequencies(chunks: Sequence[Chunk]) -> dict[str, float]:
    """Share of the chunks that hold a term, without its ending."""
    counts = Counter(term for chunk in chunks for term in set(map(_stem, terms_of(chunk.embedded))))
    return {term: count / len(chunks) for term, count in counts.items()}


def same_question(one: Wording, other: Wording, frequent: Mapping[str, float]) -> bool:
    """Whether nothing stands in one of them only that makes it another question.

    That is a number, a word that is rare in the corpus, a word that turns the question round, and
    a word of the corpus in the place of another.
    """
    apart = one.terms ^ other.terms
    if one.turns != other.turns or any(
        any(map(str.isdigit, term)) or frequent.get(term, 1.0) < RARE for term in apart
    ):
        return False
    mine, theirs = one.letters - other.letters, other.letters - one.letters
    if any((a in mine and b in theirs) or (b in mine and a in theirs) for a, b in OPPOSITES):
        return False
    exchanged = all(
        any(term in frequent for term in own - rest.terms)
        for own, rest in ((one.terms, other), (other.terms, one))
    )
    few = len(apart) <= max(2, len(one.terms & other.terms))
    return not (exchanged and few)
