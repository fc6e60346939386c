import pytest

from embedtune.records import Chunk
from embedtune.retrieve.answer.passages import FRAME, choose_passages, count_tokens, cut
from embedtune.retrieve.index import Found


def found(*texts):
    return [
        Found(Chunk(f"c{place}", "d", 0, len(text), "", text), 1 - place / 10)
        for place, text in enumerate(texts)
    ]


TOPICS = ("battery", "radio", "harvest", "gate", "winter", "driver")


def about(topic):
    return f"The {topic} has rules of its own, and {topic} rule number one is simple."


def test_the_best_come_first_and_at_most_so_many():
    chosen = choose_passages(found(*map(about, TOPICS)), 10_000, 3)
    assert [own.text for own in chosen] == [about(topic) for topic in TOPICS[:3]]
    assert [own.number for own in chosen] == [1, 2, 3]
    assert [own.score for own in chosen] == [1.0, 0.9, 0.8]


def test_what_stands_in_a_better_one_is_left_out():
    copies = (about("radio"), about("radio").upper(), about("radio")[4:40], about("gate"))
    chosen = choose_passages(found(*copies), 10_000, 6)
    assert [own.chunk.id for own in chosen] == ["c0", "c3"]


def test_what_differs_in_a_number_is_no_duplicate():
    fees = [f"In the year {year} the fee for a robot at night was {year % 100} euros."
            for year in (2021, 2022, 2023)]  # fmt: skip
    assert len(choose_passages(found(*fees), 10_000, 6)) == 3
    rules = ["夜班费用为每班十二欧元，由种植者支付。", "夜班费用为每班十五欧元，由种植者支付。"]
    assert len(choose_passages(found(*rules), 10_000, 6)) == 2


def test_what_does_not_fit_is_cut_behind_a_sentence_and_ends_the_list():
    long = " ".join(about(topic) for topic in TOPICS)
    budget = count_tokens(about("crate")) + FRAME + count_tokens(long) * 3 // 4 + FRAME
    chosen = choose_passages(found(about("crate"), long, about("arm")), budget, 6)
    assert [own.chunk.id for own in chosen] == ["c0", "c1"]
    shown = chosen[1].text
    assert long.startswith(shown)
    assert shown.endswith("simple.")
    assert len(shown) < len(long)
    assert sum(count_tokens(own.text) + FRAME for own in chosen) <= budget


@pytest.mark.parametrize("text", ["夜班费用为每班十二欧元。" * 50, "night fee " * 300])
def test_a_passage_longer_than_the_budget_is_not_left_out(text):
    (only,) = choose_passages(found(text), 100, 6)
    assert 0 < count_tokens(only.text) <= 100


def test_blank_passages_are_nothing():
    assert choose_passages(found("", "  \n"), 1000, 6) == ()
    assert choose_passages([], 1000, 6) == ()


def test_cut_keeps_short_texts_and_halves_none():
    assert cut("Short.", 10) == "Short."
    assert cut("一二三四五六七八九十", 4) == "一二三四 …"
