import pytest

from embedtune.records import Chunk
from embedtune.retrieve.answer import Passage
from embedtune.retrieve.answer.citations import CitationFilter, citations_in, quote_for


def filtered(text, count=3, step=None):
    """(text, used, removed) of an answer that comes in pieces of ``step`` characters."""
    checked, step = CitationFilter(count), step or len(text) or 1
    out = "".join(checked.feed(text[i : i + step]) for i in range(0, len(text), step))
    return out + checked.rest(), checked.used, checked.removed


CASES = [
    ("Twelve euros [1].", "Twelve euros [1].", [1], []),
    ("Twelve euros [7].", "Twelve euros.", [], [7]),
    ("A [1][9] b [3].", "A [1] b [3].", [1, 3], [9]),
    ("A [2, 1, 8].", "A [2][1].", [2, 1], [8]),
    ("A [1-3].", "A [1][2][3].", [1, 2, 3], []),
    ("A [3–2].", "A [3][2].", [3, 2], []),
    ("费用十二欧元【1】。押金［2］。", "费用十二欧元[1]。押金[2]。", [1, 2], []),
    ("费用[1、2]，另见[来源 9]。", "费用[1][2]，另见。", [1, 2], [9]),
    ("See [Passage 2] and [^1].", "See [2] and [1].", [2, 1], []),
    ("In [2024] it was so [0].", "In [2024] it was so.", [], [0]),
    ("Not [a] list [1, b] here", "Not [a] list [1, b] here", [], []),
    ("Write `args[9]` there [1].", "Write `args[9]` there [1].", [1], []),
    ("```\nx[9]\ny[0]\n```\nDone [1] [9]", "```\nx[9]\ny[0]\n```\nDone [1]", [1], [9]),
    ("A stray ` tick\nfake [9] true [1]", "A stray ` tick\nfake true [1]", [1], [9]),
    ("ends open [1", "ends open [1", [], []),
    ("", "", [], []),
]


@pytest.mark.parametrize("step", [None, 1, 2, 5])
@pytest.mark.parametrize(("text", "shown", "used", "removed"), CASES)
def test_only_true_numbers_stay_however_the_text_comes(text, shown, used, removed, step):
    assert filtered(text, step=step) == (shown, used, removed)


@pytest.mark.parametrize("step", [None, 1, 7])
def test_the_token_for_no_answer_never_comes_out(step):
    assert filtered("Part of it [1]. NOT_IN_DOCUMENTS", step=step)[0] == "Part of it [1]. "
    checked = CitationFilter(1)
    assert checked.feed("not_in_") == ""
    assert checked.feed("documents") + checked.rest() == ""
    assert checked.refused
    kept = CitationFilter(1)
    assert kept.feed("NOT_IN_") + kept.feed("THE") + kept.rest() == "NOT_IN_THE"
    assert not kept.refused


def test_text_without_brackets_is_not_held_back():
    checked = CitationFilter(2)
    assert checked.feed("Twelve") == "Twelve"
    assert checked.feed(" euros [") == " euros"
    assert checked.feed("1] a") == " [1] a"


ENGLISH = (
    "Fees A robot costs 640 euros a season. The night fee is 12 euros a shift. Boots are included."
)
CHINESE = "机器人每季租金六百四十欧元。夜班费用为每班十二欧元。靴子包含在内。"


def passage(number, text, **more):
    chunk = Chunk(f"c{number}", "d", 0, len(text), more.pop("title", ""), text, **more)
    return Passage(number, chunk, 0.5, text)


def test_each_citation_quotes_the_sentence_that_says_it():
    text = "Boots come with it [1]. At night it is 12 euros a shift [1][2]. 押金见下。[3]"
    passages = [passage(1, ENGLISH), passage(2, CHINESE), passage(3, "押金五十欧元。")]
    first, second, third = citations_in(text, [1, 2, 3], passages)
    assert first.quote in ENGLISH
    assert first.quote == "The night fee is 12 euros a shift."  # 5 words of the two claims
    assert second.quote in CHINESE
    assert third.quote == "押金五十欧元。"


def test_a_quote_is_found_by_words_in_english_and_by_characters_in_chinese():
    assert quote_for("Are boots included", ENGLISH) == "Boots are included."
    assert quote_for("夜班每班多少费用", CHINESE) == "夜班费用为每班十二欧元。"
    assert quote_for("nothing in common", CHINESE) == "机器人每季租金六百四十欧元。"
    assert quote_for("night fee", "## Night fee\nIt is 12 euros.") == "It is 12 euros."
    long = "word " * 200
    assert len(quote_for("word", long)) <= 240
    assert quote_for("word", long)[:-1] in long


def test_a_citation_behind_the_full_stop_belongs_to_the_sentence_before():
    text = "Boots are included. [1] The season costs 640 euros. [2]"
    found = citations_in(text, [1, 2], [passage(1, ENGLISH), passage(2, ENGLISH)])
    assert [own.quote for own in found] == [
        "Boots are included.",
        "Fees A robot costs 640 euros a season.",
    ]


def test_a_citation_says_where_it_stands():
    own = passage(1, "Text.", source="hand\nbook.pdf", page=3, section=("Fees", "At night"))
    (citation,) = citations_in("So [1]", [1], [own])
    assert citation.place == "hand book.pdf, p. 3, Fees > At night"
    assert citation.as_json()["page"] == 3
