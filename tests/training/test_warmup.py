"""Cropped sentences: real sentences of both languages, and never the passage itself."""

from embedtune.records import Chunk
from embedtune.training.warmup import cropped_pairs, sentences_of


def chunk(id: str, text: str, title: str = "") -> Chunk:
    return Chunk(id, id, 0, len(text), title, text)


ENGLISH = chunk("en", "The tow costs 3.5 euros a mile. Drivers pay it themselves! Is mud covered?")
CHINESE = chunk(
    "zh", "机器人停在泥里时可以呼叫拖车。费用由司机自己承担；夜班另算两倍价格。", "第三章 拖车"
)


def test_sentences_end_at_the_marks_of_both_languages_and_numbers_stay_whole():
    assert sentences_of(ENGLISH.text) == [
        "The tow costs 3.5 euros a mile.",
        "Drivers pay it themselves!",
    ]  # the third has 12 letters
    assert sentences_of(CHINESE.text) == [
        "机器人停在泥里时可以呼叫拖车。",
        "费用由司机自己承担；",
        "夜班另算两倍价格。",
    ]


def test_the_positive_is_the_passage_without_the_sentence_in_all_its_places():
    twice = chunk("twice", "Drivers pay the tow themselves. Mud is no fault. " * 2 + ENGLISH.text)
    for seed in range(8):
        for pair, own in zip(cropped_pairs([CHINESE, twice], seed=seed), (CHINESE, twice),
                             strict=True):  # fmt: skip
            assert pair.chunk == own.id
            assert pair.anchor in sentences_of(own.text)
            assert pair.anchor not in pair.positive
            assert pair.positive.startswith(own.title)
            others = [one for one in sentences_of(own.text) if one != pair.anchor]
            assert all(one in pair.positive for one in others)


def test_a_passage_of_one_sentence_gives_no_pair():
    single = "A single sentence that is long enough."
    assert cropped_pairs([chunk("a", single), chunk("b", f"{single} {single}")], seed=0) == []
    assert cropped_pairs([chunk("c", ""), chunk("d", "短。很短。")], seed=0) == []


def test_the_sentence_depends_on_seed_and_passage_alone():
    both = cropped_pairs([ENGLISH, CHINESE], seed=1)
    assert cropped_pairs([CHINESE, ENGLISH], seed=1) == both[::-1]
    drawn = {cropped_pairs([CHINESE], seed=seed)[0].anchor for seed in range(20)}
    assert len(drawn) == 3
    assert len({pair.query for pair in both}) == 2
