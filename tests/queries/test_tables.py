"""Questions about a table: the model learns its columns, the evidence is a row."""

import pytest

from embedtune.queries.checks import locate
from embedtune.records import Chunk, Document, Span

HEAD = "| Item | 2022 | 2023 |\n|---|---|---|\n"
ROWS = (
    "| Revenue | 26,914 | 26,974 |\n| Cost of sales | 9,439 | 11,618 |\n| 毛利 | 17,475 | 15,356 |"
)
TEXT = f"Intro.\n\n{HEAD}{ROWS}\n\nEnd."
DOCUMENT = Document("d", "report.pdf", "", TEXT, "pdf", "en")
TABLE = Chunk("t", "d", 8, 8 + len(HEAD + ROWS), "", HEAD + ROWS, ("Income",), language="en",
              kind="table")  # fmt: skip
LATER = TEXT.index("| Cost")
END = 8 + len(HEAD + ROWS)
CONTINUED = Chunk("u", "d", LATER, END, "Income Item | 2022 | 2023", TEXT[LATER:END], ("Income",),
                  language="en", kind="table")  # fmt: skip


def row(name):
    start = TEXT.index(f"| {name}")
    return Span("d", start, TEXT.index("\n", start))


@pytest.mark.parametrize(
    ("evidence", "name"),
    [
        ("| Cost of sales | 9,439 | 11,618 |", "Cost"),
        ("Cost of sales 9,439 11,618", "Cost"),
        ("11,618", "Cost"),
        ("Cost of sales: 11,618", "Cost"),  # a cell between them left out
        ("Cost of sales, 2023: 11,618", "Cost"),  # with the column's name
        ("毛利 15,356", "毛利"),
        ("| Revenue | 26,914 |", "Revenue"),
    ],
)
def test_evidence_in_a_table_is_the_whole_row(evidence, name):
    assert locate(evidence, TABLE, DOCUMENT) == row(name)


def test_evidence_over_two_rows_is_both():
    both = locate("11,618 |\n| 毛利 | 17,475", TABLE, DOCUMENT)
    assert both == Span("d", row("Cost").start, row("毛利").end)


@pytest.mark.parametrize("evidence", ["Revenue 99,999", "2023", "Item 2022", "profit was high", ""])
def test_what_no_single_row_holds_is_not_found(evidence):
    found = locate(evidence, TABLE, DOCUMENT)
    assert found is None or TEXT[found.start :].startswith(HEAD[:10])  # the header row itself


def test_without_the_document_offsets_still_count_from_its_start():
    assert locate("Cost of sales: 11,618", TABLE) == row("Cost")


def test_the_model_is_told_that_it_is_a_table_and_what_its_columns_are(asked):
    whole, continued = asked([TABLE, CONTINUED], [DOCUMENT])
    assert "The passage is a table" in whole.user
    assert "Item | 2022 | 2023\n\n" not in whole.user  # it stands in the passage
    assert "Income Item | 2022 | 2023\n\n" in continued.user
    text = Chunk("v", "d", 0, 200, "", "A passage of words and nothing but words.", language="en")
    assert "table" not in asked([text])[0].user


def test_a_question_about_a_table_rests_on_its_row(generate_from):
    said = [{"query": "What did sales cost in 2023?", "evidence": "Cost of sales 2023: 11,618",
             "answer": "11,618"}]  # fmt: skip
    (query,) = generate_from(said, [CONTINUED], [DOCUMENT], answers=True).queries
    assert query.evidence == row("Cost")
    assert query.flags == ()
