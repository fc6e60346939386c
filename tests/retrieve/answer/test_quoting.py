"""Answers in the documents' own words."""

import asyncio

import numpy as np
import pytest

from embedtune.records import Chunk
from embedtune.retrieve.answer import Passage
from embedtune.retrieve.answer.answering import Answerer, AnswerSettings, Question
from embedtune.retrieve.answer.prompts import CHINESE, ENGLISH
from embedtune.retrieve.answer.quoting import best_quotes, quoted

QUESTION = "What does a robot cost?"


class Even:
    """An index whose model finds all texts equally near, but those it is told to prefer."""

    def __init__(self, *preferred):
        self.preferred = preferred

    def rate(self, query, texts):
        return np.array([float(text in self.preferred) for text in texts], np.float32)


def passage(text, number=1, score=1.0, title="", section=()):
    chunk = Chunk(f"c{number}", "d", 0, len(text), title, text, section, source="d.md")
    return Passage(number, chunk, score, chunk.embedded)


def texts_of(question, *passages, index=None):
    return [quote.text for quote in best_quotes(question, passages, index or Even())]


def answered(index, text, **settings):
    answerer = Answerer(index, None, AnswerSettings(**settings))
    return asyncio.run(answerer.answer(Question(text)))


@pytest.mark.parametrize(
    ("question", "words", "best", "source"),
    [
        ("What does a robot cost a season?", ENGLISH,
         "A robot costs 640 euros a season, boots included.", "fees.md"),
        ("电池在充电座上充电需要多久？", CHINESE, "电池没电时，在充电座上充电需要九十分钟。",
         "手册.md"),
    ],
)  # fmt: skip
def test_every_line_stands_word_for_word_in_the_passage_it_cites(
    index, question, words, best, source
):
    found = answered(index, question)
    header, blank, *lines = found.text.split("\n")
    assert (header, blank, found.status) == (words.quoted, "", "quoted")
    assert lines[0].startswith(best)
    by_number = {own.number: own.chunk for own in found.passages}
    for line in lines:
        sentence, _, number = line.removesuffix("]").rpartition(" [")
        assert sentence in by_number[int(number)].text
    first = int(lines[0].removesuffix("]").rpartition(" [")[2])
    [citation] = [own for own in found.citations if own.number == first]
    assert (citation.chunk.source, citation.quote) == (source, best)
    assert [own.number for own in found.citations] == sorted(own.number for own in found.citations)


def test_the_gate_is_that_of_every_answer(index):
    found = answered(index, QUESTION, min_score=0.99)
    assert (found.status, found.reason, found.citations) == ("not-in-documents", "weak", ())
    assert answered(index, QUESTION, min_score=0.0).status == "quoted"


def test_model_words_and_place_of_the_passage_each_count():
    first = passage("Zinc is grey. Iron rusts.", 1, score=2.0)
    second = passage("Gold is heavy. Salt dissolves.", 2, score=1.0)
    # nothing else tells them apart: the better passage comes first, wherever it stands
    assert texts_of("why?", first, second)[:2] == ["Zinc is grey.", "Iron rusts."]
    assert texts_of("why?", second, first)[:2] == ["Zinc is grey.", "Iron rusts."]
    assert texts_of("gold heavy", first, second)[0] == "Gold is heavy."
    preferring = Even("Salt dissolves.")
    quotes = best_quotes("why?", [first, second], preferring)
    assert quotes[0].text == "Salt dissolves."
    text, citations = quoted("why?", quotes)
    assert text.split("\n")[2:4] == ["Salt dissolves. [2]", "Zinc is grey. [1]"]
    assert [(own.number, own.quote) for own in citations] == [
        (1, "Zinc is grey."), (2, "Salt dissolves."),
    ]  # fmt: skip


def test_headings_questions_and_scraps_are_no_answers():
    scraps = "Daily charging\n# Robot cost\nWhat does a robot cost? 12\n| --- | --- |\n"
    text = f"{scraps}The price is 640 euros."
    assert texts_of(QUESTION, passage(text, section=("Daily charging",))) == [
        "The price is 640 euros."
    ]
    chinese = passage("机器人多少钱？每季六百四十欧元。")
    assert texts_of("机器人多少钱？", chinese) == ["每季六百四十欧元。"]
    assert texts_of(QUESTION, passage("What does a robot cost?")) == []


def test_a_sentence_in_two_passages_is_quoted_once_from_the_better_one():
    both = "A robot costs 640 euros."
    one, other = passage(both, 1, 2.0), passage(f"{both} Boots are included.", 2, 1.0)
    quotes = best_quotes(QUESTION, [one, other], Even())
    assert sorted((quote.text, quote.passage.number) for quote in quotes) == [
        (both, 1), ("Boots are included.", 2),
    ]  # fmt: skip


def test_marks_of_the_document_are_no_citations_and_stay():
    class Found(Even):
        def search(self, queries, k, how, **more):
            from embedtune.retrieve.index import Found

            return [[Found(passage("Robots cost 640 euros [9], says Dr. Ash [1].").chunk, 1.0)]]

    found = answered(Found(), QUESTION)
    assert found.text.endswith("Robots cost 640 euros [9], says Dr. Ash [1]. [1]")
    assert [own.number for own in found.citations] == [1]


def test_an_endless_sentence_is_cut():
    [text] = texts_of(QUESTION, passage("robot " * 400))
    assert len(text) <= 240
    assert text.endswith("…")


def test_nothing_but_headings_is_not_in_the_documents(index):
    class Bare(Even):
        def search(self, queries, k, how, **more):
            from embedtune.retrieve.index import Found

            return [[Found(passage("# Robot cost").chunk, 1.0)]]

    found = answered(Bare(), QUESTION)
    assert (found.status, found.reason, found.text) == (
        "not-in-documents", "nothing-found", ENGLISH.missing,
    )  # fmt: skip
