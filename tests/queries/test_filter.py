"""Filters: what is left out and why, what becomes relevant too, and that real queries pass."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.llm.scripted import ScriptedChat
from embedtune.queries.filter import NEAREST, FilterSettings, _close, filter_queries
from embedtune.queries.wording import copied_share
from embedtune.records import Chunk, Document, Query, Span
from embedtune.retrieve import Hit
from embedtune.retrieve.bm25 import BM25
from embedtune.store import Store

PARTS = (
    "Night tows are billed at 240 crowns for each started hour until six in the morning. ",
    "Day tows are billed at 120 crowns for each started hour; the depot pays the driver. ",
    "夜间拖车每小时收费二百四十克朗，计费到早上六点为止，不足一小时按一小时计算。",
    "Night tows are billed at 240 crowns for each started hour until six in the morning, unless "
    "the contract says otherwise in its annex. ",
    "The canteen opens at noon and closes when the soup is gone. ",
)


def library(*parts: str):
    text = "".join(parts)
    chunks, start = [], 0
    for number, part in enumerate(parts):
        chunks.append(Chunk(f"c{number}", "d", start, start + len(part), "", part))
        start += len(part)
    return [Document("d", "tariff.md", "Tariff", text, "markdown", "en")], chunks


DOCUMENTS, CHUNKS = library(*PARTS)


def query(number: int, text: str, chunk: int = 0, origin: str = "llm", **more) -> Query:
    return Query(f"q{number}", text, origin=origin, document="d", chunk=f"c{chunk}",
                 evidence=CHUNKS[chunk].span, **more)  # fmt: skip


class Ranking:
    """Finds the chunks in a fixed order, whatever is asked."""

    name = "ranking"

    def __init__(self, *order: int) -> None:
        self.order = order

    def search(self, queries, k):
        return [[Hit(f"c{n}", 1 / (1 + rank)) for rank, n in enumerate(self.order)][:k]
                for _ in queries]  # fmt: skip


class Vectors:
    """Gives each text the vector it is told to."""

    name, dimension, max_tokens, similarity = "told", 2, 512, "cosine"

    def __init__(self, **angles: float) -> None:
        self.angles = angles

    def embed(self, texts, role):
        angles = np.radians([self.angles[text.split()[0]] for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


class Unknowing:
    """A tokenizer that knows no Chinese."""

    name, max_tokens = "unknowing", 512

    def count(self, texts):
        return [len(text.split()) + 1 for text in texts]

    def unknown(self, texts):
        return [len(text.split()) if any(c > "⺀" for c in text) else 0 for text in texts]


def run(queries, settings=None, **tools):
    found = filter_queries(queries, CHUNKS, DOCUMENTS, settings or FilterSettings(), **tools)
    assert found.counts.total == len(queries)
    assert found.counts.accepted == len(found.queries)
    assert {r.item for r in found.rejects} | {q.id for q in found.queries} == {
        q.id for q in queries
    }
    return found


def reasons(found) -> Counter:
    return Counter(reject.code for reject in found.rejects)


@pytest.mark.parametrize(
    "text",
    [
        "According to this passage, what does a night tow cost?",
        "what is the price mentioned above",
        "What does the author say about tows?",
        "How long does this agreement run?",
        "本条规定的罚款是多少？",
        "根据上述内容，夜间拖车多少钱？",
        "文中提到的收费标准是什么",
    ],
)
def test_a_query_that_needs_its_passage_at_hand_is_left_out(text):
    found = run([query(1, text)])
    assert reasons(found) == {"context": 1}
    assert not found.rejects[0].unusable  # a quality filter changes no exit code


@pytest.mark.parametrize(
    "text",
    [
        "what does a night tow cost",
        "Which document do I need to get a tow at night?",
        "is the passage through the north tunnel open",
        "合同里夜间拖车怎么收费",
        "Tarif for towing above 3.5 tonnes",
    ],
)
def test_a_query_that_stands_by_itself_stays(text):
    assert not run([query(1, text)]).rejects


def test_a_copied_query_is_left_out_and_a_keyword_one_is_not():
    copied = query(1, "billed at 240 crowns for each started hour until six")
    chinese = query(2, "夜间拖车每小时收费二百四十克朗，计费到早上六点吗", 2)
    short = query(3, "night tows billed crowns")
    own = query(4, "how much per hour to be pulled out of a ditch after dark")
    found = run([copied, chinese, short, own])
    assert reasons(found) == {"copied": 2}
    assert [kept.id for kept in found.queries] == ["q3", "q4"]
    assert len(run([copied, chinese], FilterSettings(copies=None)).queries) == 2


def test_the_share_copied_is_counted_in_long_n_grams():
    # 8 words, 3 six-grams; the first two stand in the passage
    assert copied_share("a b c d e f g x", "z a b c d e f g h") == pytest.approx(2 / 3)
    assert copied_share("a b c d e", "a b c d e") == 0  # shorter than one
    # 12 characters, 3 ten-grams; one stands in the passage
    assert copied_share("一二三四五六七八九十百千", "〇一二三四五六七八九十万") == pytest.approx(
        1 / 3
    )


def test_near_equal_queries_are_one_and_numbers_make_two():
    found = run(
        [
            query(1, "What does it cost to be towed at night, please?"),
            query(2, "what does it cost to be towed at night please"),
            query(3, "what does it cost to be towed at night in 2023 please"),
            query(4, "what does it cost to be towed at night in 2024 please"),
        ]
    )
    assert reasons(found) == {"duplicate": 1}
    assert [kept.id for kept in found.queries] == ["q1", "q3", "q4"]
    assert found.counts.duplicates == 1


def test_a_real_query_stays_and_its_generated_twin_goes():
    generated = query(1, "cost of a tow at night for trucks")
    real = query(2, "Cost of a tow at night for trucks?", origin="user")
    found = run([generated, real])
    assert [kept.id for kept in found.queries] == ["q2"]
    again = run([real, query(3, "Cost of a tow at night for trucks", origin="user")])
    assert len(again.queries) == 2  # users ask what they ask


def test_real_queries_pass_every_rule():
    asked = [
        query(1, "what does this document say", origin="user"),
        query(2, PARTS[0].strip(), origin="user"),
    ]
    found = run(asked, FilterSettings(round_trip=1), retriever=Ranking(4))
    assert found.queries == tuple(asked)


def test_close_vectors_make_one_query_of_two_about_one_passage():
    one = query(1, "alpha how much to be pulled out")
    same = query(2, "beta price of being pulled out")
    other = query(3, "gamma who feeds the horses")
    found = run([one, same, other], embedder=Vectors(alpha=0, beta=5, gamma=90))
    assert reasons(found) == {"duplicate": 1}
    assert [kept.id for kept in found.queries] == ["q1", "q3"]


def test_close_vectors_do_not_join_questions_about_different_passages_in_different_words():
    one, other = query(1, "alpha how much to be pulled out"), query(2, "beta opening hours", 4)
    third = query(3, "gamma far away from both", 1)
    assert not run([one, other, third], embedder=Vectors(alpha=0, beta=1, gamma=90)).rejects


def test_a_model_that_calls_everything_alike_joins_nothing():
    """Mean cosine 0.98: a cosine of 0.99 says nothing."""
    words = ["tow fares", "soup menu", "horse feed", "gate keys", "boot sizes", "rain covers"]
    asked = [query(number, text) for number, text in enumerate(words)]
    angles = {text.split()[0]: 4.0 * number for number, text in enumerate(words)}
    assert np.cos(np.radians(4)) > FilterSettings().duplicates
    assert not run(asked, embedder=Vectors(**angles)).rejects


def test_texts_the_model_cannot_read_are_not_compared_by_it():
    one, other = query(1, "夜间 拖车 收费", 2), query(2, "食堂 几点 关门", 2)
    told = Vectors(夜间=0.0, 食堂=0.0, alpha=90)
    english = query(3, "alpha quite another question")
    assert reasons(run([one, other, english], embedder=told)) == {"duplicate": 1}
    assert not run([one, other, english], embedder=told, tokens=Unknowing()).rejects


def test_a_duplicate_gives_its_evidence_to_the_one_that_stays():
    one = query(1, "price of a tow per started hour", 0)
    other = query(2, "Price of a tow per started hour?", 1)
    (kept,) = run([one, other]).queries
    assert kept.more_evidence == (CHUNKS[1].span,)


def test_the_round_trip_drops_what_is_not_found_and_is_off_by_default():
    asked = [query(1, "what about after dark")]
    lost = Ranking(4, 1, 2)
    assert not run(asked, retriever=lost).rejects
    assert reasons(run(asked, FilterSettings(round_trip=2), retriever=lost)) == {"round-trip": 1}
    assert not run(asked, FilterSettings(round_trip=3), retriever=Ranking(4, 1, 0)).rejects
    # a near-duplicate of the passage, found in its stead, will do
    twin = filter_queries(asked, CHUNKS, DOCUMENTS, FilterSettings(round_trip=2),
                          alike=[(0, 3)], retriever=Ranking(3, 4))  # fmt: skip
    assert len(twin.queries) == 1


def test_a_passage_found_first_that_holds_the_evidence_becomes_relevant_too():
    (kept,) = run([query(1, "after dark")], retriever=Ranking(3, 1, 0)).queries
    (span,) = kept.more_evidence
    assert CHUNKS[3].span.overlap(span) == span.length
    assert DOCUMENTS[0].text[span.start : span.end].startswith("Night tows are billed at 240")


def test_other_numbers_or_later_ranks_are_no_further_evidence():
    # chunk 1 reads like chunk 0 with other numbers; chunk 3 comes after the query's own
    (kept,) = run([query(1, "after dark")], retriever=Ranking(1, 0, 3)).queries
    assert kept.more_evidence == ()


def judge_with(tmp_path, answer, queries, **settings):
    """``answer``: from query text and passages to the judge's words."""

    def reply(request):
        return answer(request.facts["query"], request.facts["passages"])

    store = Store(tmp_path / "a.sqlite")
    chat = RecordedChat(ScriptedChat(reply), store, LLMSettings(provider="scripted"))
    with store:
        return run(queries, FilterSettings(judge=True, **settings),
                   retriever=Ranking(3, 1, 0, 4, 2), chat=chat)  # fmt: skip


def opinion(score, *answers):
    return json.dumps({"score": score, "reason": "because", "answers": [
        {"passage": number, "evidence": evidence} for number, evidence in answers]})  # fmt: skip


def test_the_judge_keeps_seven_and_names_further_passages(tmp_path):
    def answer(text, passages):
        place = passages.index(PARTS[0]) + 1
        other = passages.index(PARTS[1]) + 1
        if text.startswith("poor"):
            return opinion(6, (place, PARTS[0].strip()))
        if text.startswith("lost"):
            return opinion(9, (other, PARTS[1].strip()))
        return opinion(7, (place, PARTS[0].strip()), (other, "Day tows are billed at 120 crowns"))

    queries = [query(1, "good one"), query(2, "poor one"), query(3, "lost question")]
    found = judge_with(tmp_path, answer, queries)
    assert reasons(found) == {"judge": 2}
    (kept,) = found.queries
    assert CHUNKS[1].span.overlap(kept.more_evidence[-1]) == len(
        "Day tows are billed at 120 crowns"
    )
    assert found.usage is not None
    assert found.usage.new == 3


def test_a_judge_that_gives_nothing_usable_is_said_and_makes_exit_4(tmp_path):
    found = judge_with(tmp_path, lambda text, passages: "I like it", [query(1, "good one")])
    (reject,) = found.rejects
    assert (reject.code, reject.unusable) == ("not-judged", True)


@pytest.mark.parametrize("text", ['{"score": 11, "answers": []}', '{"score": "high"}', "[1, 2]",
                                  '{"score": 8}', '{"score": true, "answers": []}'])  # fmt: skip
def test_an_opinion_out_of_shape_is_not_guessed_at(tmp_path, text):
    found = judge_with(tmp_path, lambda *_: text, [query(1, "good one")])
    assert reasons(found) == {"not-judged": 1}


def test_the_same_input_gives_the_same_outcome():
    asked = [query(n, f"question {n % 3} about tows and hours", n % 5) for n in range(9)]
    assert run(asked) == run(asked)


def test_no_query_and_no_chunk_are_no_fault():
    assert filter_queries([], [], [], FilterSettings(), retriever=Ranking()).queries == ()
    lone = Query("q", "who pays", origin="llm", evidence=Span("gone", 0, 5))
    assert filter_queries([lone], [], [], FilterSettings()).queries == (lone,)


# ---- numbers, places and settings that are unusual


def test_a_question_asked_of_four_places_says_nothing_about_any():
    """By small differences in wording, which the check for equal texts does not see."""
    forms = ("What is the fare", "what is the fare?", "What is the fare??", "WHAT is the fare!")
    asked = [query(n, text, n) for n, text in enumerate(forms)]
    found = run(asked)
    assert reasons(found) == {"duplicate": 3, "generic": 1}
    assert (found.counts.rejected, found.counts.duplicates) == (1, 3)
    three = run(asked[:3])
    assert len(three.queries[0].more_evidence) == 2
    real = run([*asked, query(9, "what is the fare", 4, "user")])
    assert len(real.queries[0].more_evidence) == 4  # a real one is never left out


def test_thousands_of_equal_queries_are_one_and_generic():
    chunks = [Chunk(f"k{n}", f"d{n}", 0, 50, "", f"The fare of boat {n}.") for n in range(3000)]
    asked = [
        Query(f"q{n}", f"what is the fare{'?' * (n % 40)}", origin="llm", chunk=f"k{n}",
              document=f"d{n}", evidence=Span(f"d{n}", 0, 20))
        for n in range(3000)
    ]  # fmt: skip
    found = filter_queries(asked, chunks, [], FilterSettings())
    assert found.counts.total == 3000
    assert reasons(found) == {"duplicate": 2999, "generic": 1}


def test_vectors_that_are_all_close_give_few_pairs():
    """A cluster of n alike vectors has n² / 2 close pairs; of each query only some are seen."""
    draw = np.random.default_rng(0)
    vectors = np.concatenate([1 + 0.01 * draw.standard_normal((1500, 8)),
                              -1 + 0.01 * draw.standard_normal((1500, 8))])  # fmt: skip
    pairs = list(_close(vectors.astype(np.float32), 0.9))
    assert len(pairs) <= 3000 * NEAREST
    assert {other for _, other in pairs} == {*range(1, 1500), *range(1501, 3000)}
    assert all(one < other and (one < 1500) == (other < 1500) for one, other in pairs)


def test_close_vectors_are_found_whatever_the_block(monkeypatch):
    vectors = np.random.default_rng(3).standard_normal((90, 3)).astype(np.float32)
    whole = set(_close(vectors, 0.9))
    monkeypatch.setattr("embedtune.queries.filter.CELLS", 90 * 7)
    assert set(_close(vectors, 0.9)) == whole
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = rows @ rows.T
    mean = max(0.0, (cosines.sum() - 90) / (90 * 89))
    assert whole == {(i, j) for i in range(90) for j in range(i + 1, 90)
                     if cosines[i, j] >= mean + 0.9 * (1 - mean)}  # fmt: skip


def test_a_query_is_judged_by_its_evidence_where_its_chunk_is_gone(tmp_path):
    """Cut anew, the passage has another id: it is still the one that was copied from."""
    copied = query(1, "billed at 240 crowns for each started hour until six")
    moved = replace(copied, chunk="c-before")
    assert reasons(run([moved])) == {"copied": 1}
    own = replace(query(2, "how much after dark"), chunk="c-before")
    seen = []

    def answer(text, passages):
        seen.append(passages)
        return opinion(8, (passages.index(PARTS[0]) + 1, PARTS[0].strip()))

    assert judge_with(tmp_path, answer, [own]).queries
    assert len(seen) == 1


def comparison(number: int, text: str) -> Query:
    return query(number, text, style="comparison", more_evidence=(CHUNKS[4].span,))


def test_both_passages_of_a_comparison_are_looked_at(tmp_path):
    copied = comparison(1, "the canteen opens at noon and closes when the soup is gone")
    assert reasons(run([copied])) == {"copied": 1}

    def answer(text, passages):
        assert PARTS[0] in passages
        assert PARTS[4] in passages  # the retriever has it fourth, out of four others
        assert len(passages) == 5
        return opinion(9, (passages.index(PARTS[4]) + 1, PARTS[4].strip()))

    asked = [comparison(2, "do tows or soup end earlier in the night")]
    (kept,) = judge_with(tmp_path, answer, asked).queries
    assert kept.more_evidence[0] == CHUNKS[4].span


def test_a_comparison_passes_the_round_trip_by_either_passage():
    asked = [comparison(1, "do tows or soup end earlier")]
    assert not run(asked, FilterSettings(round_trip=1), retriever=Ranking(4, 1)).rejects
    assert reasons(run(asked, FilterSettings(round_trip=1), retriever=Ranking(1, 4))) == {
        "round-trip": 1
    }


def test_queries_without_evidence_pass_what_needs_it(tmp_path):
    bare = Query("q1", "who pays the driver", origin="llm")
    found = judge_with(tmp_path, lambda *_: "never asked", [bare], round_trip=1)
    assert found.queries == (bare,)


def test_marks_that_touch_no_chunk_are_told():
    """Somebody marked a passage of a document that has changed since."""
    gone = (Span("d-before", 0, 40), CHUNKS[1].span)
    found = run([query(1, "night tow price", origin="user", more_evidence=gone)])
    assert any(note.startswith("1 further passages") for note in found.notes)
    assert found.queries[0].more_evidence == gone


def test_repeated_ids_are_counted_each():
    twice = [query(1, "who feeds the horses", origin="user")] * 2
    assert filter_queries(twice, CHUNKS, DOCUMENTS, FilterSettings()).counts.accepted == 2
    generated = [query(1, "who feeds the horses")] * 2
    counts = filter_queries(generated, CHUNKS, DOCUMENTS, FilterSettings()).counts
    assert (counts.accepted, counts.duplicates) == (1, 1)


HOSTILE = (
    "\ud800 broken",
    "=HYPERLINK(1)",
    "<script>",
    "a" * 20_000,
    "？" * 500,
    "\u202ea",
    "\x00",
)


def test_hostile_texts_are_texts():
    asked = [query(n, text) for n, text in enumerate(HOSTILE)]
    found = run(asked, retriever=BM25(CHUNKS))
    assert len(found.queries) + len(found.rejects) == len(HOSTILE)
    assert found.counts == run(asked, retriever=BM25(CHUNKS)).counts


@given(
    st.lists(
        st.tuples(st.sampled_from(["night fare", "night fare?", "夜间票价多少", "day fare 2", ""]),
                  st.integers(0, 4), st.sampled_from(["llm", "user", "extractive"])),
        max_size=12,
    )
)  # fmt: skip
def test_whatever_comes_the_counts_add_up_and_order_stays(rows):
    asked = [query(n, text, chunk, origin) for n, (text, chunk, origin) in enumerate(rows)]
    found = run(asked)
    places = [asked.index(next(q for q in asked if q.id == kept.id)) for kept in found.queries]
    assert places == sorted(places)
    assert {q.id for q in asked if q.origin == "user"} <= {q.id for q in found.queries}
    assert run(found.queries).queries == found.queries  # once filtered, nothing is left to do
