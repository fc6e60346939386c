import pytest

from embedtune.errors import ConfigError
from embedtune.queries import QuerySettings, estimate_queries
from embedtune.queries.estimate import count_tokens
from embedtune.records import Chunk, Document

TEXTS = [
    "The Alder tent weighs 2.1 kilograms and stands a storm of 90 km/h. Its poles are aluminium.",
    "Clean the stove with vinegar after every trip. Gas bottles must be returned to the desk.",
    "The Birch tent weighs 3.4 kilograms and stands a storm of 130 km/h. Its poles are fibreglass.",
]
DOCUMENT = Document("d", "gear.md", "", "\n".join(TEXTS), "md", "en")
CHUNKS = [
    Chunk(f"c{n}", "d", DOCUMENT.text.index(text), DOCUMENT.text.index(text) + len(text), "", text,
          (f"Part {n}",), language="en")
    for n, text in enumerate(TEXTS)
]  # fmt: skip


def parts(**options):
    judged = {name: options.pop(name) for name in ("judge", "real") if name in options}
    estimate = estimate_queries(CHUNKS, [DOCUMENT], QuerySettings(**options), **judged)
    return estimate, {part.name: part for part in estimate.parts}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("the fee is due", 4),
        ("internationalisation", 3),  # 9 + 9 + 2 letters
        ("Fees: 1,250.50!", 8),  # Fees : 1 , 25 0 . 50 !, less one by rounding down nothing
        ("报名费用", 3),
        ("报名 fee", 3),  # 1.5 + 1, rounded to even
    ],
)
def test_tokens_are_counted_by_pieces(text, tokens):
    assert abs(count_tokens(text) - tokens) <= 1


def test_the_estimate_counts_the_very_requests_that_generation_makes(asked):
    for options in ({}, {"styles": ("question", "comparison"), "personas": ("a clerk",)},
                    {"answers": True}, {"min_characters": 100_000}):  # fmt: skip
        requests = asked(CHUNKS, [DOCUMENT], **options)
        estimate, _ = parts(**options)
        assert estimate.requests == len(requests)
        told = sum(
            count_tokens(request.system) + count_tokens(request.user) for request in requests
        )
        assert estimate.input_tokens == told


def test_each_kind_of_request_has_its_part():
    estimate, found = parts(styles=("question", "comparison"), comparisons=0.3)
    assert {name: part.requests for name, part in found.items()} == {
        "questions": 3, "comparisons": 1
    }  # fmt: skip
    assert estimate.queries == 3 * 2 + 1
    assert found["questions"].output_tokens == 6 * 60
    assert found["comparisons"].output_tokens == 90


def test_answers_and_the_judge_cost_more():
    plain, _ = parts()
    answered, _ = parts(answers=True)
    judged, found = parts(judge=True)
    assert answered.output_tokens == plain.output_tokens + 6 * 30
    assert answered.input_tokens > plain.input_tokens
    assert found["judge"].requests == plain.queries == 6
    assert judged.input_tokens - plain.input_tokens == found["judge"].input_tokens > 6 * 5 * 20


def test_only_unlabelled_real_queries_are_judged(tmp_path):
    path = tmp_path / "real.txt"
    path.write_text("how heavy is it\nwhat to clean\tClean the stove with vinegar\n?!\n", "utf-8")
    _, found = parts(file=path, real=True, **{"from": "file"})
    assert [(part.name, part.requests) for part in found.values()] == [("real queries", 1)]
    assert parts(file=path, **{"from": "file"})[0].requests == 0


def test_what_costs_nothing_is_estimated_as_nothing():
    estimate, found = parts(**{"from": "extractive"}, judge=True)
    assert (estimate.requests, estimate.input_tokens, found) == (0, 0, {})


def test_equal_requests_count_once_as_they_are_asked_once():
    twice = [*CHUNKS, *(Chunk(f"{c.id}x", "d", c.start, c.end, "", c.text, c.section, language="en")
                        for c in CHUNKS)]  # fmt: skip
    estimate = estimate_queries(twice, [DOCUMENT], QuerySettings(per_chunk=1, styles=("question",)))
    assert estimate.requests == 3


def test_a_missing_file_is_told_before_anything_is_spent(tmp_path):
    with pytest.raises(ConfigError, match=r"queries\.examples"):
        parts(examples=tmp_path / "gone.txt")
    with pytest.raises(ConfigError, match=r"queries\.file"):
        parts(file=tmp_path / "gone.txt", real=True, **{"from": "file"})
