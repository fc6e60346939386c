"""What the words of a query say about it."""

import pytest

from embedtune.queries.wording import context_of, frequencies, same_question, wording_of
from embedtune.records import Chunk


@pytest.mark.parametrize(
    "text",
    [
        "基本条件是什么",  # holds 本条
        "文本文件如何上传",  # 本文
        "网上表格在哪里下载",  # 上表
        "成本节约有哪些办法",  # 本节
        "英文中怎么说",  # 文中
        "语文中考什么时候举行",
        "资本章程怎么修改",  # 本章
        "线下表演几点开始",  # 下表
        "应该文明驾驶吗",  # 该文
        "成本法怎么计算",  # 本法
        "我该报告给谁",
        "这段时间还有船吗",
        "What does consideration mean in the context of contract law?",
        "How do I format text in the text box?",
        "can the captain read it from the text file",
        "Which documents does the ferry office ask for?",
    ],
)
def test_characters_inside_other_words_point_at_no_passage(text: str) -> None:
    assert context_of(text) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("本条规定的罚款是多少？", "本条"),
        ("在本文中，作者怎么看", "本文"),
        ("本法所称证券是什么", "本法"),
        ("本合同的有效期多长", "本合同"),
        ("该文件什么时候生效", "该文件"),
        ("上表中的金额是多少", "上表"),
        ("文中提到的收费标准", "文中"),
        ("这段话说明了什么", "这段"),
        ("according to the document, who pays?", "according to the document"),
        ("What is the fee, based on the information provided?", "based on the information"),
        ("What is said in this context?", "in this context"),
    ],
)
def test_words_that_point_at_the_passage_are_named(text: str, words: str) -> None:
    assert context_of(text) == words


SMALL = [
    Chunk("c0", "d", 0, 9, "", "The buyer and the seller sign; the maximum and the minimum fine."),
    Chunk("c1", "d", 9, 18, "", "The buyer pays the seller. 北港和南港之间有船。北港的票价高。"),
]


def same(one: str, other: str) -> bool:
    forward = same_question(wording_of(one), wording_of(other), frequencies(SMALL))
    assert forward == same_question(wording_of(other), wording_of(one), frequencies(SMALL))
    return forward


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What does the buyer sign at the pier?", "What does the seller sign at the pier?"),
        ("What is the maximum fine here?", "What is the minimum fine here?"),
        ("Are dogs allowed on the boat?", "Are dogs not allowed on the boat?"),
        ("Are bikes allowed on board?", "Aren't bikes allowed on board?"),
        ("who may travel with a ticket", "who may travel without a ticket"),
        ("is there a boat before noon", "is there a boat after noon"),
        ("boats from the island", "boats to the island"),
        ("what does it cost in 2023", "what does it cost in 2024"),
        ("从北港出发的船票多少钱", "从南港出发的船票多少钱"),
        ("男员工的陪产假有几天", "女员工的陪产假有几天"),
        ("哪些人可以乘船不用买票", "哪些人可以乘船要买票"),
        ("六点以前有船吗", "六点以后有船吗"),
        ("甲方什么时候付款", "乙方什么时候付款"),
    ],
)
def test_one_word_can_make_two_questions(one: str, other: str) -> None:
    assert not same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What does the buyer sign?", "what do buyers sign"),
        ("is there a boat to the island", "are there boats to the island?"),
        ("how do I get my fare back", "how to get back the fare"),
        ("能不能带狗上船", "能带狗上船吗"),
        ("有没有夜班船", "有夜班船吗"),
        ("北港的船票多少钱？", "北港船票多少钱"),
    ],
)
def test_form_makes_no_other_question(one: str, other: str) -> None:
    assert same(one, other)
