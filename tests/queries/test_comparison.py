"""Questions over two passages of one document."""

import random

import pytest

from embedtune.queries.comparison import choose_pairs
from embedtune.records import Chunk, Document

TENT = "The Alder tent weighs 2.1 kilograms and stands a storm of 90 km/h. Its poles are aluminium."
HUT = (
    "The Birch tent weighs 3.4 kilograms and stands a storm of 130 km/h. Its poles are fibreglass."
)
STOVE = "Clean the stove with vinegar after every trip. Gas bottles must be returned to the desk."
FEES = "The yearly fee for a locker is 30 euros. Keys are handed out at the counter on Mondays."
TEXT = "\n\n".join([TENT, STOVE, HUT, FEES])
DOCUMENT = Document("d", "gear.md", "Gear", TEXT, "md", "en")


def chunk(text, section, document=DOCUMENT, language="en"):
    start = document.text.index(text)
    return Chunk(f"{document.id}-{start}", document.id, start, start + len(text), "", text, section,
                 language=language, source=document.source)  # fmt: skip


ALDER, BIRCH = chunk(TENT, ("Alder",)), chunk(HUT, ("Birch",))
OTHERS = [chunk(STOVE, ("Stove",)), chunk(FEES, ("Lockers",))]
CHUNKS = [ALDER, OTHERS[0], BIRCH, OTHERS[1]]
SAID = {
    "query": "Which tent is lighter, Alder or Birch?",
    "evidence_1": "The Alder tent weighs 2.1 kilograms",
    "evidence_2": "The Birch tent weighs 3.4 kilograms",
}
ONLY = {"styles": ("comparison",), "comparisons": 0.25}


# ---- which passages


def test_passages_about_related_things_are_paired():
    assert choose_pairs(CHUNKS, 9) == [(ALDER, BIRCH)]


def test_the_choice_does_not_depend_on_the_order_of_the_chunks():
    words = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu".split()  # noqa: SIM905
    chunks = []
    for number in range(6):
        order = random.Random(number)
        parts = [" ".join(order.sample(words, 5)) + f" word{number}{n}." for n in range(8)]
        document = Document(f"d{number}", "", "", " ".join(parts), "md", "en")
        chunks += [chunk(part, (str(n),), document) for n, part in enumerate(parts)]
    shuffled = random.Random(1).sample(chunks, len(chunks))
    pairs = choose_pairs(chunks, 12)
    assert len(pairs) == 12
    assert pairs == choose_pairs(shuffled, 12)
    assert len({chunk.id for pair in pairs for chunk in pair}) == 24  # none twice
    assert {pair[0].document for pair in pairs} == {f"d{n}" for n in range(6)}  # all have a turn
    assert all(one.document == other.document and one.start < other.start for one, other in pairs)


def test_passages_of_one_section_near_duplicates_and_overlaps_are_no_pair():
    assert choose_pairs([ALDER, chunk(HUT, ("Alder",))], 9) == []
    again = Document("d", "", "", f"{TENT}\n\n{TENT} Yes.", "md", "en")
    twice = [chunk(TENT, ("a",), again), chunk(f"{TENT} Yes.", ("b",), again)]
    assert choose_pairs(twice, 9) == []
    wide = Chunk("w", "d", 0, len(TEXT), "", TEXT, ("w",), language="en")
    assert choose_pairs([ALDER, wide], 9) == []
    other = Document("e", "", "", HUT, "md", "en")
    assert choose_pairs([ALDER, chunk(HUT, ("Birch",), other)], 9) == []


def test_without_sections_neighbours_are_no_pair():
    plain = [chunk(text, ()) for text in (TENT, STOVE, HUT)]
    assert choose_pairs(plain, 9) == [(plain[0], plain[2])]
    assert choose_pairs([plain[0], plain[2]], 9) == []  # nothing stands between them


def test_chinese_passages_are_paired_too():
    one = "白桦帐篷重三点四公斤，可抗十级大风，支架为玻璃纤维。"
    two = "赤杨帐篷重二点一公斤，可抗八级大风，支架为铝合金。"
    rest = "炉具每次用完须用白醋清洗，气罐应退还前台。"
    document = Document("z", "", "", one + rest + two, "md", "zh")
    chunks = [chunk(text, (text[:2],), document, "zh") for text in (one, rest, two)]
    assert choose_pairs(chunks, 9) == [(chunks[0], chunks[2])]


# ---- asking and reading


def test_comparisons_are_asked_for_only_where_the_styles_name_them(asked):
    assert len(asked(CHUNKS, [DOCUMENT])) == 4
    assert len(asked(CHUNKS, [DOCUMENT], styles=("question", "comparison"))) == 5
    (request,) = asked(CHUNKS, [DOCUMENT], **ONLY)
    fields = list(request.schema["properties"]["queries"]["items"]["properties"])
    assert fields == ["query", "evidence_1", "evidence_2"]
    assert TENT in request.user
    assert HUT in request.user
    assert "Alder / Birch" in request.user


def test_their_number_is_a_share_of_the_chunks(asked):
    trees = "ash beech cedar elm fir hazel ivy larch oak pine".split()  # noqa: SIM905
    parts = [
        f"The {tree} tent weighs {n} kilograms: {tree} cloth, {tree * 2} poles, {tree * 3} pegs."
        for n, tree in enumerate(trees)
    ]
    document = Document("d", "", "", " ".join(parts), "md", "en")
    chunks = [chunk(part, (str(n),), document) for n, part in enumerate(parts)][:8]
    for share, count in ((0.01, 1), (0.25, 2), (0.5, 4), (1.0, 4)):
        requests = asked(chunks, [document], styles=("comparison",), comparisons=share)
        assert len(requests) == count
        assert all(request.user.count(" tent weighs ") == 2 for request in requests)


def test_fewer_pairs_than_wanted_are_noted(generate_from):
    generation = generate_from([SAID], CHUNKS, [DOCUMENT], styles=("comparison",), comparisons=1.0)
    assert any("1 of 4 comparisons" in note for note in generation.notes)


def test_a_comparison_has_evidence_in_both_passages(generate_from):
    (query,) = generate_from([SAID], CHUNKS, [DOCUMENT], **ONLY).queries
    assert [TEXT[span.start : span.end] for span in query.spans] == [
        SAID["evidence_1"], SAID["evidence_2"]]  # fmt: skip
    assert (query.style, query.chunk, query.document, query.flags) == (
        "comparison", ALDER.id, "d", ())  # fmt: skip
    assert len(query.more_evidence) == 1


def test_evidence_given_the_other_way_round_is_found(generate_from):
    said = dict(SAID, evidence_1=SAID["evidence_2"], evidence_2=SAID["evidence_1"])
    (query,) = generate_from([said], CHUNKS, [DOCUMENT], **ONLY).queries
    assert TEXT[query.evidence.start : query.evidence.end] == SAID["evidence_1"]
    assert query.flags == ()


@pytest.mark.parametrize(
    "said",
    [
        dict(SAID, evidence_2="Nobody said this."),
        dict(SAID, evidence_1=""),
        dict(SAID, evidence_1=SAID["evidence_2"]),  # both in the second passage
    ],
)
def test_both_pieces_of_evidence_must_be_found(generate_from, said):
    (query,) = generate_from([said], CHUNKS, [DOCUMENT], **ONLY).queries
    assert query.flags == ("not-grounded",)
    assert len(query.spans) == 2
    rejected = generate_from([said], CHUNKS, [DOCUMENT], ungrounded="reject", **ONLY)
    assert [reject.code for reject in rejected.rejects] == ["not-grounded"]
    assert rejected.rejects[0].item == f"{ALDER.id} {BIRCH.id}"


@pytest.mark.parametrize("text", [TENT, f"{HUT} True?"])
def test_one_of_the_passages_is_no_comparison(generate_from, text):
    generation = generate_from([dict(SAID, query=text)], CHUNKS, [DOCUMENT], **ONLY)
    assert [reject.code for reject in generation.rejects] == ["copy"]


def test_a_second_comparison_is_surplus(generate_from):
    said = [SAID, dict(SAID, query="Which tent stands more wind, Alder or Birch?")]
    generation = generate_from(said, CHUNKS, [DOCUMENT], **ONLY)
    assert len(generation.queries) == 1
    assert [reject.code for reject in generation.rejects] == ["surplus"]


def test_an_answer_may_rest_on_both_passages(generate_from):
    said = [dict(SAID, answer="Alder, with 2.1 kilograms against 3.4 of the Birch.")]
    (query,) = generate_from(said, CHUNKS, [DOCUMENT], answers=True, **ONLY).queries
    assert query.flags == ()
    said = [dict(SAID, answer="Alder, by 1.3 kilograms.")]
    (query,) = generate_from(said, CHUNKS, [DOCUMENT], answers=True, **ONLY).queries
    assert query.flags == ("answer-not-grounded",)


def test_a_scripted_model_is_not_confused_by_comparisons(generate_from):
    def said(request):
        assert request.facts.get("text", "") in ("", TENT, STOVE, HUT, FEES)
        return []

    styles = ("question", "comparison")
    assert generate_from(said, CHUNKS, [DOCUMENT], name="scripted:x", styles=styles).queries == ()
