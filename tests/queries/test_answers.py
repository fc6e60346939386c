"""Answers in words: asked for when wanted, and held against their passage."""

import pytest

from embedtune.queries.answers import unsupported
from embedtune.records import Chunk, Document

COURSE = (
    "The fee is €640 and includes boots, which you keep. Candidates must be eighteen years old and "
    "hold a permit. Applications close on 2024-05-12. The club has 1,250 members."
)
ROBOT = (
    "A loper weighs 212 kilograms and climbs slopes of thirty percent. The DGX H100 draws 10.2 kW "
    "at most. Revenue rose to $26.97 billion in fiscal 2023, up 61 %."
)
KURS = (
    "报名费为640欧元，包含靴子一双。申请人须年满十八周岁，并持有有效证件。报名截止日期为二〇二四年五月十二日。"
    "协会现有会员一千二百五十人。违反本规定的，处三万元以上五万元以下罚款。"
)
JIQI = (
    "每台采摘机器人重二百一十二公斤，可爬百分之三十的坡。DGX H100 系统的最大功耗为 10.2 千瓦。"
    "2023财年收入增至269.7亿美元，同比增长61%。"
)
TABLE = "In millions\n| Item | 2023 |\n|---|---|\n| Revenue | 26,974 |\n"


@pytest.mark.parametrize(
    ("passage", "answer", "query"),
    [
        (COURSE, "The course costs 640 EUR, boots included.", "How expensive is the course?"),
        (COURSE, "The fee is six hundred and forty euros.", ""),
        (COURSE, "Applicants need to be at least 18.", "How old must applicants be?"),
        (COURSE, "Yes.", ""),
        (COURSE, "12 May 2024", ""),
        (COURSE, "The club counts 1250 members.", ""),
        (ROBOT, "212 kg", ""),
        (ROBOT, "Slopes of up to 30%.", ""),
        (ROBOT, "Revenue was 26.97 billion dollars in fiscal year 2023.", ""),
        (ROBOT, "The DGX H100 draws 10.2 kilowatts.", ""),
        (TABLE, "Revenue was 26,974 million.", ""),
        (KURS, "需要640欧元，含一双靴子。", "报名多少钱？"),
        (KURS, "申请者至少要18周岁，并有有效证件。", ""),
        (KURS, "2024年5月12日", ""),
        (KURS, "有1250名会员。", ""),
        (KURS, "处3万元以上5万元以下的罚款。", ""),
        (KURS, "可以。", ""),
        (JIQI, "每台重212公斤，最多能爬30%的坡。", ""),
        (JIQI, "最大10.2千瓦。", "DGX H100 功耗多大？"),
        ("建议服用H2受体拮抗剂。", "应服用 H2 受体拮抗剂。", ""),
        (JIQI, "收入为269.7亿美元，增长61%。", ""),
    ],
)
def test_an_answer_in_its_own_words_is_grounded(passage, answer, query):
    assert unsupported(answer, passage, query) == ""


@pytest.mark.parametrize(
    ("passage", "answer", "what"),
    [
        (COURSE, "It costs 650 euros.", "650"),
        (COURSE, "It costs 6,400 euros.", "6400"),
        (COURSE, "You must be twenty-one.", "twenty-one"),
        (COURSE, "Applications close on 12 June 2024.", "June"),
        (COURSE, "The fee is set by Monika Huber.", "Monika"),
        (COURSE, "Send a letter with a passport photograph.", "words"),
        (COURSE, "It costs 640 euros, payable by bank transfer to an account abroad.", "words"),
        (ROBOT, "The DGX A100 draws 10.2 kW.", "A100"),
        (ROBOT, "Revenue rose to 26.97 million.", "26.97 million"),
        (KURS, "报名费为460欧元。", "460"),
        (KURS, "申请人须年满二十一周岁。", "二十一"),
        (KURS, "处十万元以下罚款。", "十万"),
        (KURS, "需缴纳押金并购买意外保险。", "words"),
        (KURS, "由北京大学组织。", "words"),
        (JIQI, "DGX A100 的功耗为 10.2 千瓦。", "A100"),
        (JIQI, "系统采用DGX A100机型。", "A100"),
        (JIQI, "收入为269.7万美元。", "269.7"),
    ],
)
def test_a_fact_the_passage_does_not_hold_is_named(passage, answer, what):
    assert what in unsupported(answer, passage)


def test_common_words_made_of_numerals_are_no_numbers():
    assert (
        unsupported("会员十分统一，万一有一个问题也一样。", "会员十分统一，万一有一个问题也一样。")
        == ""
    )
    assert unsupported("One of the members.", COURSE) == ""


# ---- in generation

DOCUMENT = Document("d", "rules.md", "Rules", COURSE, "md", "en")
CHUNK = Chunk("c", "d", 0, len(COURSE), "", COURSE, language="en", source="rules.md")
FEE = {"query": "How expensive is the course?", "style": "question",
       "evidence": "The fee is €640", "answer": "It costs 640 euros."}  # fmt: skip


def test_answers_are_asked_for_only_when_wanted(asked):
    (plain,) = asked([CHUNK], [DOCUMENT])
    (wanting,) = asked([CHUNK], [DOCUMENT], answers=True)
    fields = [
        list(request.schema["properties"]["queries"]["items"]["properties"])
        for request in (plain, wanting)
    ]
    assert fields == [["query", "style", "evidence"], ["query", "style", "evidence", "answer"]]
    assert '"answer": "…"' in wanting.system
    assert "answer too" in wanting.system
    assert "answer too" not in plain.system


def test_the_answer_is_kept_with_its_query(generate_from):
    (query,) = generate_from([FEE], [CHUNK], [DOCUMENT], answers=True).queries
    assert (query.answer, query.flags) == ("It costs 640 euros.", ())


def test_an_answer_is_not_kept_where_none_was_wanted(generate_from):
    (query,) = generate_from([FEE], [CHUNK], [DOCUMENT]).queries
    assert query.answer == ""


def test_an_answer_that_is_not_in_the_passage_is_flagged_or_by_setting_rejected(generate_from):
    said = [dict(FEE, answer="It costs 700 euros.")]
    (query,) = generate_from(said, [CHUNK], [DOCUMENT], answers=True).queries
    assert query.flags == ("answer-not-grounded",)
    rejected = generate_from(said, [CHUNK], [DOCUMENT], answers=True, ungrounded="reject")
    assert rejected.queries == ()
    (reject,) = rejected.rejects
    assert (reject.code, reject.field) == ("answer-not-grounded", "queries[0].answer")
    assert "700" in reject.message
    assert reject.excerpt == "It costs 700 euros."


@pytest.mark.parametrize("answer", ["", "\u0000", FEE["query"], "so " * 2_000_000, None, 7])
def test_a_missing_answer_is_flagged_and_counted(generate_from, answer):
    generation = generate_from([dict(FEE, answer=answer)], [CHUNK], [DOCUMENT], answers=True)
    if isinstance(answer, str) and len(answer) > 1_000_000:  # the whole reply is refused
        assert [reject.code for reject in generation.rejects] == ["answer-too-long"]
        return
    assert [query.flags for query in generation.queries] == [("answer-missing",)]
    assert any("1 queries came without an answer" in note for note in generation.notes)


def test_the_heading_and_the_query_may_be_used_in_an_answer(generate_from):
    chunk = Chunk("c", "d", 0, len(COURSE), "Alpine course 2025", COURSE, ("Alpine course 2025",),
                  language="en")  # fmt: skip
    said = [dict(FEE, answer="The Alpine course 2025 costs 640 euros.")]
    (query,) = generate_from(said, [chunk], [DOCUMENT], answers=True).queries
    assert query.flags == ()
