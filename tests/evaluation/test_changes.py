"""What changed rank and why, worked out by hand in two languages."""

import pytest

from embedtune.embed.tokens import WordTokens
from embedtune.evaluation.changes import changes
from embedtune.records import Chunk, Query, Span
from embedtune.results import SystemScores

METRIC = "ndcg@10"


class SomeTokens(WordTokens):
    """Words, of which the Chinese ones are unknown; two special tokens; eight are read."""

    def __init__(self):
        super().__init__(8)

    def count(self, texts):
        return [number + 2 for number in super().count(texts)]

    def unknown(self, texts):
        return [sum("一" <= sign <= "鿿" for sign in text) for text in texts]


def chunk(name, text, document="d"):
    return Chunk(name, document, 0, len(text), "", text)


CHUNKS = [
    chunk("fee", "the fee is two pounds"),
    chunk("fine", "the fine is due at once", "other"),
    chunk("long", "one two three four five six seven eight nine ten", "long"),
    chunk("zh", "试用期三个月", "zh"),
    chunk("near", "试用期满后转正", "zh"),
]
QUERIES = [
    Query("q1", "what is the fee"),
    Query("q2", "which number follows nine", evidence=Span("long", 39, 48)),
    Query("q3", "试用期多久"),
    Query("q4", "colour of the moon"),
]
QRELS = {"q1": {"fee": 1}, "q2": {"long": 1}, "q3": {"zh": 1}, "q4": {"near": 1, "long": 1}}


def system(name, values, rankings):
    hits = {query: tuple((chunk, 1.0) for chunk in ranking) for query, ranking in rankings.items()}
    return SystemScores(name, "dense", {}, {METRIC: dict(values)}, hits)


BASE = system(
    "base", {"q1": 0.63, "q2": 1.0, "q3": 1.0, "q4": 0.0},
    {"q1": ["fine", "fee"], "q2": ["long"], "q3": ["zh", "near"], "q4": ["fee"]},
)  # fmt: skip
TUNED = system(
    "tuned", {"q1": 1.0, "q2": 0.5, "q3": 0.63, "q4": 0.0},
    {"q1": ["fee", "fine"], "q2": ["fee", "fine", "long"], "q3": ["near", "zh"], "q4": ["fine"]},
)  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return changes(BASE, TUNED, [], METRIC, queries=QUERIES, chunks=CHUNKS, qrels=QRELS,
                   tokens=SomeTokens())  # fmt: skip


def test_gains_and_losses_are_counted_and_ordered_by_size(found):
    assert (found.gained, found.lost, found.same) == (1, 2, 1)
    assert [change.look.query for change in found.most_gained] == ["q1"]
    assert [change.look.query for change in found.most_lost] == ["q2", "q3"]


def test_ranks_and_the_passage_in_its_place(found):
    [gain] = found.most_gained
    assert (gain.rank_before, gain.rank_after, gain.other) == (2, 1, "fine")
    assert gain.look.shared == ("is", "the", "fee")
    assert gain.other_shared == ("is", "the")
    assert (gain.look.terms, gain.look.codes) == (4, ())
    loss = found.most_lost[0]
    assert (loss.rank_before, loss.rank_after, loss.other) == (1, 3, "fee")


def test_words_that_share_a_stem_are_shown_as_the_question_has_them():
    asked = [Query("q1", "fees of charging batteries"), *QUERIES[1:]]
    there = [chunk("fee", "the fee is charged by battery"), *CHUNKS[1:]]
    [gain] = changes(BASE, TUNED, [], METRIC, queries=asked, chunks=there, qrels=QRELS,
                     tokens=SomeTokens()).most_gained  # fmt: skip
    assert (gain.look.shared, gain.look.terms) == (("fees", "charging", "batteries"), 4)


def test_what_the_base_does_not_read(found):
    long, chinese = found.most_lost
    # of ten words and two special tokens eight are read: up to "six"; the evidence is "nine ten"
    assert (long.look.passage_tokens, long.look.limit) == (12, 8)
    assert long.look.codes == ("cut", "answer-cut")
    assert (chinese.look.unknown, chinese.look.tokens) == (5, 7)
    assert set(chinese.look.codes) == {"unknown-query", "unknown-passage", "same-document"}


def test_an_answer_that_is_read_is_not_cut():
    early = Query("q2", "which number follows nine", evidence=Span("long", 0, 7))
    found = changes(BASE, TUNED, [], METRIC, queries=[early], chunks=CHUNKS, qrels=QRELS,
                    tokens=SomeTokens())  # fmt: skip
    assert found.most_lost[0].look.codes == ("cut",)


def test_chinese_terms_in_common_are_characters_and_pairs(found):
    chinese = found.most_lost[1]
    assert chinese.look.shared == ("试", "用", "期", "试用", "用期")
    assert chinese.other_shared == chinese.look.shared


def test_the_hardest_are_those_no_system_answers(found):
    assert [item.look.query for item in found.hardest] == ["q4"]
    [hardest] = found.hardest
    assert (hardest.best, hardest.mean) == (0, 0)
    assert hardest.ranks == {"base": None, "tuned": None}
    assert hardest.look.codes[0] == "no-shared-term"
    assert "several-right" in hardest.look.codes
    assert found.unfound == 1


def test_codes_are_counted_by_what_became_of_the_query(found):
    counted = {count.code: (count.gained, count.lost, count.same) for count in found.codes}
    assert counted["cut"] == (0, 1, 1)  # "long" answers q2, and stands for q4
    assert counted["same-document"] == (0, 1, 0)
    assert "other-shares-more" not in counted


def test_a_near_duplicate_of_a_right_passage_is_right():
    found = changes(BASE, TUNED, [], METRIC, queries=QUERIES, chunks=CHUNKS, qrels=QRELS,
                    tokens=SomeTokens(), near_duplicates=[("zh", "near")])  # fmt: skip
    assert found.most_lost[1].rank_after == 1
    assert found.most_lost[1].other == ""


def test_the_order_of_the_queries_changes_nothing(found):
    def turned(scores):
        values = dict(reversed(scores.per_query[METRIC].items()))
        return SystemScores(scores.name, "dense", {}, {METRIC: values}, scores.rankings)

    again = changes(turned(BASE), turned(TUNED), [], METRIC, queries=QUERIES[::-1],
                    chunks=CHUNKS[::-1], qrels=QRELS, tokens=SomeTokens())  # fmt: skip
    assert again == found
