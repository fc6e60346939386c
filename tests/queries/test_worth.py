import pytest

from embedtune.queries.worth import is_contents, not_worth_asking
from embedtune.records import Chunk


def chunk(text, name="c", document="d", section=()):
    return Chunk(name, document, 0, len(text), "", text, section)


LEADERS = "1 Scope ........ 4\n2 Fees ......... 9\n3 Repairs ...... 15\n4 Returns ..... 22"
SPACED = "Scope . . . . . 4 Fees . . . . . 9 Repairs . . . . . 15 Returns . . . . . 22"
PAGES = "Item 1. Business 4\nItem 2. Properties 33\nItem 3. Legal matters 34\nItem 4. Mines 34"
CHINESE = "第一章 总则……1\n第二章 报名……3\n第三章 考试……8\n第四章 附则……12"
TABLE = (
    "| Part | Page |\n|---|---|\n| Scope | 4 |\n| Fees | 9 |\n| Repairs | 15 |\n| Returns | 22 |"
)
INDEX = "battery, 12, 45\ncharging, 9\ndock, 3–5\ngloves, 88\nladder, 7"
PRICES = "Boots 40\nJacket 80\nTent 120\nSledge 300\nSnow shoes 340"


@pytest.mark.parametrize(
    ("text", "section"),
    [
        (LEADERS, ()),
        (SPACED, ()),
        (CHINESE, ()),
        (f"TABLE OF CONTENTS\n\nPage\n\n{PAGES}", ()),
        (PAGES, ("Report", "Contents")),
        (PAGES, ("目　录",)),
        (TABLE, ("Table of contents",)),
        (INDEX, ("Index",)),
    ],
)
def test_a_list_of_pages_is_contents(text, section):
    assert is_contents(chunk(text, section=section))


@pytest.mark.parametrize(
    ("text", "section"),
    [
        (PRICES, ("Prices",)),
        (PRICES, ("Package contents",)),
        ("Bolts 8\nScrews 4\nNuts 2\nWashers 1", ("Contents",)),  # of a box: the numbers fall
        (TABLE.replace("Page", "Price"), ("Prices",)),
        ("Wait ... 3 minutes, then ... 5 more.", ()),
        ("The contents of this notice were not reviewed by anyone.", ("Contents",)),
    ],
)
def test_other_lists_of_numbers_are_not(text, section):
    assert not is_contents(chunk(text, section=section))


def test_what_stands_in_more_than_three_documents_is_boilerplate():
    notice = "All rights reserved. No part of this guide may be copied without leave of the grower."
    own = [chunk(f"{notice} Edition {n}.", f"n{n}", f"d{n}") for n in range(4)]
    other = chunk("A loper weighs 212 kilograms and climbs slopes of thirty percent.", "x", "d9")
    found = not_worth_asking([*own, other], 20)
    assert {name: code for name, (code, _) in found.items()} == {
        "n0": "boilerplate", "n1": "boilerplate", "n2": "boilerplate", "n3": "boilerplate"
    }  # fmt: skip
    assert not_worth_asking([*own[:3], other], 20) == {}
    same_document = [chunk(notice, f"n{n}", "d") for n in range(9)]
    assert not_worth_asking(same_document, 20) == {}


def test_chunks_not_worth_asking_about_are_not_sent_and_counted(generate_from):
    chunks = [chunk(LEADERS, "toc"), chunk("Page 7", "tiny"), chunk(PRICES, "prices")]
    sent = []

    def said(request):
        sent.append(request.facts["text"])
        return []

    generation = generate_from(said, chunks, [])
    assert sent == [PRICES]
    assert [(reject.item, reject.code) for reject in generation.rejects] == [
        ("toc", "contents"), ("tiny", "too-small"), ("prices", "no-queries")
    ]  # fmt: skip
    assert not any(reject.unusable for reject in generation.rejects)
    assert generation.counts.total == 3
