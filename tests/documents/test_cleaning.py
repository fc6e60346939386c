"""Cleaning: repeated lines are learned, rules keep and drop, places stay right."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from embedtune.documents.cleaning import CleaningSettings, clean_documents, without
from embedtune.documents.outline import blocks_of
from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.llm.scripted import ScriptedChat
from embedtune.records import Document
from embedtune.store import Store

NOTICE = "© Ferry Office, all rights reserved. Printed copies are not controlled."
FACTS = ["The pier opens at six.", "Dogs travel free.", "Bicycles cost four crowns.",
         "夏季每小时一班船。", "Fog stops the boats.", "The kiosk sells soup."]  # fmt: skip


def document(number: int, text: str, kind: str = "markdown", **more) -> Document:
    return Document(f"d{number}", f"{number}.md", f"Sheet {number}", text, kind, "en", **more)


def sheets(count: int = 6, line: str = NOTICE):
    return [document(n, f"{FACTS[n]}\n\nMore of {FACTS[n]}\n\n{line}\n") for n in range(count)]


def run(documents, chat=None, **settings):
    found = clean_documents(documents, CleaningSettings(**settings), chat)
    assert found.counts.total == len(documents)
    assert found.counts.accepted == len(found.documents)
    assert found.counts.rejected + found.counts.duplicates == len(
        [reject for reject in found.rejects if reject.code != "not-chosen"]
    )
    return found


def test_a_line_at_the_end_of_all_documents_stays_in_the_first_only():
    found = run(sheets())
    assert [NOTICE in cleaned.text for cleaned in found.documents] == [True] + [False] * 5
    assert all(FACTS[n] in cleaned.text for n, cleaned in enumerate(found.documents))
    (rule,) = found.repeated
    assert (rule.line, rule.documents, rule.removed) == (NOTICE, 6, 5)
    assert any("repeated in 6 documents, removed 5 times" in note for note in found.notes)


def test_case_and_blanks_do_not_hide_a_repetition_but_other_figures_do():
    upper = sheets(3) + [document(n, f"{FACTS[n]}\n\n{NOTICE.upper()}  \n") for n in range(3, 6)]
    assert run(upper).repeated[0].removed == 5
    priced = [document(n, f"{FACTS[n]}\n\nThe fare is {n + 2} crowns.\n") for n in range(6)]
    assert not run(priced).repeated


def test_it_can_be_switched_off_and_needs_enough_documents():
    assert [d.text for d in run(sheets(), repeated=False).documents] == [d.text for d in sheets()]
    assert not run(sheets(4)).repeated


def test_headings_tables_code_and_rows_are_never_learned():
    text = "# Duties\n\n{}\n\n| item | fee |\n| --- | --- |\n| sack | 2 |\n\n```\nrun ferry\n```\n"
    alike = [document(n, text.format(FACTS[n])) for n in range(6)]
    assert not run(alike).repeated
    rows = [document(n, f"{FACTS[n]}\n\nharbour: north\n", "csv") for n in range(6)]
    assert not run(rows).repeated


def test_in_the_middle_of_documents_half_of_them_must_hold_it():
    def with_middle(n: int, line: str) -> Document:
        around = [f"Line {k} of sheet {n} about {FACTS[n % 6]}" for k in range(20)]
        return document(n, "\n\n".join([*around[:10], line, *around[10:]]))

    few = [with_middle(n, NOTICE if n < 4 else f"Nothing {n}.") for n in range(12)]
    assert not run(few).repeated
    many = [with_middle(n, NOTICE if n < 6 else f"Nothing {n}.") for n in range(12)]
    assert run(many).repeated[0].removed == 5


def test_a_chinese_notice_is_learned_too():
    found = run(sheets(line="本资料由轮渡公司编制，仅供内部使用，未经许可不得外传。"))
    assert found.repeated[0].removed == 5


def test_what_says_something_of_the_one_document_is_left_to_it():
    """Equal lines that are answers, fields, or parts of sentences."""
    alike = {
        "short": "{}\n\nAre dogs allowed?\n\nYes, they are.\n",
        "field": "{}\n\nApplies to: all employees of the ferry office\n",
        "chinese field": "{}\n\n适用范围：轮渡公司全体员工及家属\n",
        "all under a heading": "{}\n\n## Is fog covered?\n\nNo, fog is covered by no ticket.\n",
        "half a sentence": "{}\n\nWhoever travels on the {}\nhas to hold a ticket of the day.\n",
    }
    for name, text in alike.items():
        texts = [text.format(FACTS[n], f"boat number {n}") for n in range(6)]
        found = run([document(n, text) for n, text in enumerate(texts)])
        assert [doc.text for doc in found.documents] == texts, name
        assert not found.repeated, name


def test_lists_and_whole_sentences_inside_a_paragraph_are_removed():
    menu = "- Tickets and timetables\n- {}\n- Terms and conditions of travel\n"
    found = run([document(n, f"{FACTS[n]}\n\n{menu.format(FACTS[n])}") for n in range(6)])
    assert found.documents[5].text.split("\n\n")[1].strip() == f"- {FACTS[5]}"
    closing = "{} It is so.\nThis sheet is printed on paper from old timetables.\n"
    found = run([document(n, closing.format(FACTS[n])) for n in range(6)])
    assert [rule.removed for rule in found.repeated] == [5]


def test_few_lines_of_a_short_document_are_its_edges():
    """In a document of twelve lines the middle is not its beginning or its end."""

    def sheet(n: int) -> Document:
        lines = [f"Remark {k} about sheet {n}, {FACTS[k % 6]}" for k in range(12)]
        if n < 4:
            lines[5] = "Dogs may travel on all of our boats for free."
        return document(n, "\n\n".join(lines))

    assert not run([sheet(n) for n in range(20)]).repeated


def test_a_line_on_half_of_the_pages_of_one_document_stays_once():
    mark = "Confidential, for the ferry office only"
    text, pages = "", []
    for n in range(8):
        pages.append((len(text), n + 1))
        text += f"## Slide {n}\n\nThe boat number {n} leaves at {n + 6}.\n\n"
        text += f"{mark}\n\n" if n != 3 else ""
    (cleaned,) = (found := run([document(1, text, "pptx", pages=tuple(pages))])).documents
    assert cleaned.text.count(mark) == 1
    assert [(rule.line, rule.removed) for rule in found.repeated] == [(mark, 6)]
    assert [cleaned.text[at : at + 10] for at, _ in cleaned.pages] == [
        f"## Slide {n}"[:10] for n in range(8)
    ]
    assert run([document(1, text, "pptx")]).documents[0].text == text  # no pages are known


def test_rows_of_a_workbook_are_rows_too():
    rows = [document(n, f"{FACTS[n]}\n\nPlease see the manual of the boat.", "xlsx",
                     meta={"sheet": "Help"}) for n in range(6)]  # fmt: skip
    assert not run(rows).repeated


def test_thousands_of_cuts_and_pages_are_moved_in_time():
    line = "A notice that stands on each and every page of it.\n\n"
    text = "".join(f"Page {n} says something.\n\n{line}" for n in range(20_000))
    pages = tuple((m.start(), n) for n, m in enumerate(re.finditer("Page", text)))
    (cleaned,) = run([document(1, text, "text", pages=pages)]).documents
    assert cleaned.text.count("notice") == 1
    assert all(cleaned.text.startswith("Page", offset) for offset, _ in cleaned.pages)


DUTIES = """Intro of the post.

# Mate

## Duties

Steer the boat.

### At night

Watch the lamps.

## Requirements

A licence and five years at sea.

## Benefits

Free soup.
"""


@pytest.mark.parametrize(
    ("settings", "kept", "gone"),
    [
        ({"drop_headings": ["benefits"]}, ["licence", "lamps", "Intro"], ["soup"]),
        ({"keep_headings": ["^requirements$"]}, ["licence"], ["soup", "Steer", "Intro", "lamps"]),
        ({"keep_headings": ["duties"]}, ["Steer", "lamps"], ["licence", "soup"]),
        ({"keep_headings": ["duties"], "drop_headings": ["night"]}, ["Steer"], ["lamps"]),
        ({"drop_patterns": [r"free\s+soup"]}, ["Benefits", "licence"], ["Free soup"]),
        ({"keep_patterns": ["years", "lamps"]}, ["licence", "lamps", "# Mate"], ["Steer"]),
    ],
)
def test_sections_and_paragraphs_are_kept_and_dropped_by_rule(settings, kept, gone):
    (cleaned,) = run([document(1, DUTIES)], **settings).documents
    assert all(word in cleaned.text for word in kept)
    assert not any(word in cleaned.text for word in gone)
    assert cleaned.id != "d1"


def test_chinese_headings_are_found_by_pattern():
    text = "# 招聘\n\n## 岗位职责\n\n驾驶渡船。\n\n## 任职要求\n\n持有驾驶证书。\n"
    (cleaned,) = run([document(1, text)], keep_headings=["任职"]).documents
    assert "证书" in cleaned.text
    assert "渡船" not in cleaned.text


def test_a_document_of_which_nothing_is_left_is_named():
    found = run([document(1, DUTIES), document(2, "Only an intro.\n")], keep_headings=["duties"])
    (reject,) = found.rejects
    assert (reject.code, reject.file, reject.unusable) == ("nothing-kept", "2.md", False)


def test_documents_that_become_equal_are_one():
    text = "# A\n\nKept.\n\n# B\n\nOwn {}.\n"
    same = [Document(f"d{n}", f"{n}.md", "T", text.format(n), "markdown", "en") for n in range(2)]
    found = run(same, drop_headings=["^B$"])
    assert found.counts.duplicates == 1
    assert "0.md" in found.rejects[0].message


@pytest.mark.parametrize("pattern", ["(", " ", "[a"])
def test_a_broken_pattern_is_refused_with_its_text(pattern):
    with pytest.raises(ValidationError):
        CleaningSettings(drop_headings=[pattern])


@given(st.text("ab\n ", max_size=60), st.data())
def test_what_is_left_is_the_rest_and_pages_stay_on_their_text(text, data):
    place = st.integers(0, len(text))
    spans = data.draw(st.lists(st.tuples(place, place), max_size=5))
    pages = tuple((offset, n) for n, offset in enumerate(sorted(data.draw(st.lists(place)))))
    cleaned = without(document(1, text, "pdf", pages=pages), spans)
    gone = {n for start, end in spans for n in range(start, end)}
    assert cleaned.text == "".join(c for n, c in enumerate(text) if n not in gone)
    assert [offset for offset, _ in cleaned.pages] == [
        sum(n not in gone for n in range(offset)) for offset, _ in pages
    ]


def test_headings_that_the_pdf_reader_saw_move_with_the_text():
    text = "Notice.\n\nScope\n\nAll boats.\n\nFares\n\nFour crowns.\n"
    marks = f"{text.index('Scope')}:23 {text.index('Fares')}:23"
    before = document(1, text, "pdf", meta={"headings": marks})
    (cleaned,) = run([before], drop_headings=["scope"]).documents
    labels = [block.label for block in blocks_of(cleaned) if block.rank]
    assert labels == ["Fares"]
    assert "boats" not in cleaned.text


def chooser(tmp_path, answer):
    def reply(request):
        return answer(request.facts["headings"])

    return RecordedChat(
        ScriptedChat(reply), Store(tmp_path / "a.sqlite"), LLMSettings(provider="scripted")
    )


def test_a_language_model_chooses_the_sections(tmp_path):
    def answer(headings):
        wanted = [n for n, path in enumerate(headings, 1) if path and path[-1] == "Requirements"]
        return json.dumps({"keep": wanted})

    found = run([document(1, DUTIES)], chooser(tmp_path, answer), ask="the requirements")
    assert found.documents[0].text.strip().startswith("## Requirements")
    assert "soup" not in found.documents[0].text
    assert found.usage is not None
    assert found.usage.new == 1


@pytest.mark.parametrize(
    "answer",
    ['{"keep": [99]}', '{"keep": [0]}', '{"keep": "2"}', '{"keep": [true]}', '{"keep": [1.5]}',
     '{"keep": ' + "[" * 100_000, "", "[2]"],
)  # fmt: skip
def test_a_choice_of_sections_that_are_not_there_is_none(tmp_path, answer):
    found = run([document(1, DUTIES)], chooser(tmp_path, lambda _: answer), ask="any")
    assert found.documents[0].text == DUTIES
    assert [reject.code for reject in found.rejects] == ["not-chosen"]


def test_a_blank_wish_is_refused():
    with pytest.raises(ValidationError, match="which sections matter"):
        CleaningSettings(ask="  ")


def test_without_a_usable_choice_the_document_is_kept_whole_and_named(tmp_path):
    found = run([document(1, DUTIES)], chooser(tmp_path, lambda _: "all of them"), ask="any")
    assert found.documents[0].text == DUTIES
    (reject,) = found.rejects
    assert (reject.code, reject.unusable) == ("not-chosen", True)
