"""Near-duplicates against brute force over the definition, and on the real sets."""

import random
import re
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz
from rapidfuzz.distance import LCSseq

from embedtune import similar
from embedtune.datasets.beir import read_beir
from embedtune.similar import alike, components, near_duplicates, normalise, shares_run

SHARED = Path(__file__).resolve().parents[2] / "shared"
ENGLISH = re.findall(
    r"\w+",
    """
    robot battery night shift charge dock probe winter orchard crate firmware radio gripper apple
    sensor fault reset invoice grower insurance driver report angle harvest mud tow error limit
    pressure valve pump filter oil wheel axle lamp cable switch torque handle spare manual
    """,
)
CHINESE = (
    "机器人电池夜班充果园冬季检修固件无线手臂苹果传感器故障复位发票种植者保险司机报告"
    "角度收获泥泞拖车错误限制压力阀门泵过滤油轮轴灯缆开关扭矩把备件说明"
)


def text_in(language: str, rng: random.Random, size: int = 60) -> list[str]:
    """A passage of invented sentences, as a list of its smallest pieces."""
    if language == "zh":
        return [rng.choice(CHINESE) + ("。" if i % 17 == 16 else "") for i in range(3 * size)]
    return [rng.choice(ENGLISH) + (". " if i % 9 == 8 else " ") for i in range(size)]


def edited(pieces: list[str], language: str, rng: random.Random) -> list[str]:
    """Every tenth piece is another."""
    changed = list(pieces)
    for at in rng.sample(range(len(pieces)), len(pieces) // 10):
        changed[at] = rng.choice(text_in(language, rng, 3))
    return changed


def near(one: str, other: str) -> bool:
    """The definition, word for word."""
    one, other = normalise(one), normalise(other)
    return fuzz.ratio(one, other) >= 85 or fuzz.partial_ratio(one, other) >= 95


def by_brute_force(texts: list[str]) -> set[tuple[int, int]]:
    return {pair for pair in combinations(range(len(texts)), 2) if near(*(texts[i] for i in pair))}


def planted(language: str, kind: str, count: int = 150) -> tuple[list[str], set[tuple[int, int]]]:
    rng = random.Random(f"{language}{kind}")
    texts, pairs = [], set()
    for number in range(count):
        pieces = text_in(language, rng, 20 + number)
        size = len(pieces)
        twin = {
            "edited": lambda p=pieces: edited(p, language, rng),
            "contained": lambda p=pieces, n=size: p[n // 4 : n // 4 + n // 2],
            "window": lambda p=pieces, n=size: p[n // 20 :] + text_in(language, rng, n // 60),
            "copied": lambda p=pieces: [piece.upper().replace(" ", "  ") for piece in p],
        }[kind]()
        pairs.add((len(texts), len(texts) + 1))
        texts += ["".join(pieces), "".join(twin)]
    return texts, pairs


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["edited", "contained", "window", "copied"])
def test_planted_near_duplicates_are_found_and_nothing_else(kind, language):
    texts, pairs = planted(language, kind)
    true = {pair for pair in pairs if near(*(texts[i] for i in pair))}
    assert len(true) >= 0.9 * len(pairs)  # the planting itself is sound
    found = set(near_duplicates(texts))
    assert len(found & true) >= 0.99 * len(true)
    assert all(near(texts[one], texts[other]) for one, other in found)


def test_sentences_in_another_order_are_another_text():
    rng = random.Random(5)
    sentences = ["".join(text_in("en", rng, 9)) for _ in range(6)]
    texts = ["".join(sentences), "".join(reversed(sentences))]
    assert not near(*texts)
    assert near_duplicates(texts) == []


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["en", "zh"]))
def test_whole_small_sets_agree_with_brute_force(rng, language):
    texts = []
    for _ in range(6):
        pieces = text_in(language, rng, rng.randint(15, 40))
        texts.append("".join(pieces))
        for _ in range(rng.randint(0, 2)):
            pieces = edited(pieces, language, rng)[rng.randint(0, 3) :]
            texts.append("".join(pieces))
    assert set(near_duplicates(texts)) == by_brute_force(texts)


@settings(max_examples=200, deadline=None)
@given(st.text("ab 机器", min_size=1, max_size=40), st.text("ab 机器", min_size=1, max_size=40))
def test_alike_is_the_definition(one, other):
    one, other = normalise(one), normalise(other)
    if one and other:
        assert alike(one, other) == alike(other, one) == near(one, other)


@settings(max_examples=200, deadline=None)
@given(st.text("abc", min_size=12, max_size=60), st.text("abc", min_size=12, max_size=60))
def test_sixty_percent_of_the_shorter_is_implied_by_partial_ratio(one, other):
    shorter, longer = sorted((one, other), key=len)
    found = fuzz.partial_ratio_alignment(shorter, longer, score_cutoff=95)
    if found is not None:
        assert found.dest_end - found.dest_start >= 0.6 * len(shorter)


def test_width_case_and_blanks_do_not_matter():
    assert near_duplicates(["ＡＢＣ  工厂", "abc 工厂"]) == [(0, 1)]


def test_short_texts_only_match_when_equal_and_empty_ones_never():
    assert near_duplicates(["reset it", "reset it!", "", " ", "", "reset it"]) == [(0, 5)]


def test_no_texts_and_one_text_have_no_pairs():
    assert near_duplicates([]) == near_duplicates(["a passage about something or other"]) == []


def test_very_many_copies_are_one_component_without_all_pairs():
    texts = ["Copyright Orchard Robotics, all rights reserved."] * 2000 + [
        "Something else entirely."
    ]
    pairs = near_duplicates(texts)
    assert len(pairs) < 5000
    assert components(len(texts), pairs) == [0] * 2000 + [2000]


def test_a_large_family_is_one_component():
    rng = random.Random(3)
    frame = "".join(text_in("en", rng, 60))
    texts = [f"Part number {rng.randint(10_000, 99_999)}. {frame}" for _ in range(400)]
    assert set(components(400, near_duplicates(texts))) == {0}


HELD = {
    "cut out", "two percent", "a sentence less", "a sentence more", "over the end", "copy",
    "behind strange words", "before strange words",
}  # fmt: skip


def changed(pieces: list[str], share: float, language: str, rng: random.Random) -> list[str]:
    other = text_in(language, rng, 30)
    return [rng.choice(other) if rng.random() < share else piece for piece in pieces]


def long_pairs(language: str, rng: random.Random, size: int) -> dict[str, tuple[str, str]]:
    """A long text with what stands in it, and what does not."""
    long = text_in(language, rng, 4 * size)
    length = len(long) // 4
    cut, strange = long[length : 2 * length], text_in(language, rng, size)
    parts = {
        "cut out": cut,
        "two percent": changed(cut, 0.02, language, rng),
        "a sentence less": cut[: length // 2] + cut[length // 2 + length // 50 :],
        "a sentence more": cut[: length // 2] + strange[: length // 50] + cut[length // 2 :],
        "over the end": long[-length:] + strange[: length // 50],
        "behind strange words": strange[: length // 12] + long[-length:],
        "before strange words": long[:length] + strange[: length // 12],
        "a third over the end": long[-2 * length // 3 :] + strange[: length // 3],
        "a third before the start": strange[: length // 3] + long[: 2 * length // 3],
        "copy": changed(long, 0.1, language, rng),
        "half of it": cut[: length // 2] + strange[: length // 2],
        "nine tenths": cut[: 9 * length // 10] + strange[: length // 10],
        "a fifth changed": changed(cut, 0.2, language, rng),
        "other text": strange,
    }
    return {name: ("".join(part), "".join(long)) for name, part in parts.items()}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_way_for_long_texts_says_what_the_definition_says(language, monkeypatch):
    monkeypatch.setattr(similar, "EXACT", 0)
    rng = random.Random(f"long {language}")
    for _ in range(8):
        pairs = long_pairs(language, rng, rng.randint(60, 250))
        found = {name: alike(*map(normalise, pair)) for name, pair in pairs.items()}
        assert found == {name: near(*pair) for name, pair in pairs.items()}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_long_texts_are_compared_where_they_agree_only(language, monkeypatch):
    cells = 0

    def counted(one, other, score_cutoff=None):
        nonlocal cells
        cells += len(one) * len(other)
        return LCSseq_similarity(one, other, score_cutoff=score_cutoff)

    LCSseq_similarity = LCSseq.similarity
    monkeypatch.setattr(LCSseq, "similarity", counted)
    monkeypatch.setattr(fuzz, "partial_ratio", lambda *_, **__: pytest.fail("takes minutes"))
    pairs = long_pairs(language, random.Random(7), 1500)
    for name, (one, other) in pairs.items():
        cells = 0
        one, other = normalise(one), normalise(other)
        assert min(len(one), len(other)) ** 2 > similar.EXACT
        assert alike(one, other) == (name in HELD), name
        assert cells <= 25 * min(len(one), len(other)) ** 2, name


def test_texts_that_repeat_one_line_are_compared_too():
    line = "the same line once more, and then the same line again. "
    assert alike(normalise(line * 100), normalise(line * 1000))
    assert not alike(
        normalise(line * 100), normalise("another line altogether, of another. " * 900)
    )


def test_components_name_the_smallest_member():
    assert components(6, [(4, 2), (5, 4), (0, 1)]) == [0, 0, 2, 3, 2, 2]


def test_lone_surrogates_and_rare_planes_are_text_like_any_other():
    text = "𠮷野家\ud83d的机器人在果园里工作，夜间充电。"
    assert near_duplicates([text, text + "！"]) == [(0, 1)]


def across(name: str) -> tuple[int, int, float]:
    data = read_beir(SHARED / "data" / name).data
    begin = time.perf_counter()
    pairs = near_duplicates([chunk.embedded for chunk in data.chunks])
    seconds = time.perf_counter() - begin
    split_of = defaultdict(set)
    for split in ("train", "dev", "test"):
        for grades in data.qrels[split].values():
            for chunk in grades:
                split_of[chunk].add(split)
    ids = [chunk.id for chunk in data.chunks]
    both = [(split_of[ids[one]], split_of[ids[other]]) for one, other in pairs]
    return len(pairs), sum(bool(one and other and one != other) for one, other in both), seconds


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "pairs", "crossing"),
    # By brute force over all pairs with rapidfuzz. A MinHash sieve at Jaccard 0.8 finds about
    # 206 and 7 of the crossing ones in the first two.
    [
        ("medquad", 1295, 621),
        ("onet_jobs", 118, 47),
        ("securities_law", 3, 1),
        ("nvidia_10k", 4, 0),
    ],
)
def test_real_sets_give_what_brute_force_gives(name, pairs, crossing):
    found, between, seconds = across(name)
    assert (found, between) == (pairs, crossing)
    assert seconds < 20  # one or two on an idle machine


@pytest.mark.parametrize(
    ("query", "passage", "copied"),
    [
        ("why do the lamps of the north quay never go out", "THE LAMPS: of the North Quay, never "
         "go out at night.", True),  # eight words, whatever stands between them
        ("why the lamps of the north quay glow", "The lamps of the north quay never go out", False),
        ("请问北边码头的路灯为什么整夜都亮着", "北边码头的路灯，为什么整夜都亮着呢？", True),
        ("北边码头的路灯为什么整夜", "码头的路灯为什么整夜不灭", False),  # ten in a row
        ("北边码头的 LED 路灯为什么整夜", "北边码头的路灯为什么整夜都亮着", False),
        ("", "anything", False),
    ],
)  # fmt: skip
def test_a_copied_run_is_eight_words_or_twelve_ideographs(query, passage, copied):
    assert shares_run(query, passage) is copied
