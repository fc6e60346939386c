"""Learning from passages alone: what is cropped and deleted, and the trainings on it."""

import random

import pytest

from embedtune.errors import ConfigError, NothingUsable
from embedtune.files import sha256_of
from embedtune.records import Chunk
from embedtune.training import warmup
from embedtune.training.plan import TrainingSettings
from embedtune.training.static_train import refuse_unused
from embedtune.training.warmup import (
    WORD,
    apart,
    cropped_pairs,
    lesson_of,
    sentences_of,
    warm_up,
    without,
)


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


# ---- what the trainings are shown

METHODS = ("tsdae", "simcse", "crops")
methods = pytest.mark.parametrize("method", METHODS)
TOPICS = ("robot", "battery", "mud", "fee", "radio", "crate", "winter", "fruit")
LONG = chunk("long", " ".join(f"w{number}" for number in range(500)))


def passages(count: int) -> list[Chunk]:
    """Of two sentences each, all different."""
    found = []
    for number in range(count):
        draw = random.Random(number)
        first, second = ([draw.choice(TOPICS) for _ in range(5)] for _ in "ab")
        text = f"{' '.join(first).capitalize()}. {' '.join(second).capitalize()} {number}."
        found.append(chunk(f"p{number}", text))
    return found


def test_deleted_words_leave_no_trace_in_either_language():
    words = list(WORD.finditer(ENGLISH.text))
    kept = [word for word in words if word[0] in ("tow", "5", "mile", ".", "Is")]
    # "3.5" is three words here: 3, the point and 5
    assert without(ENGLISH.text, words, kept) == "tow .5 mile. Is"
    words = list(WORD.finditer(CHINESE.text))
    assert [word[0] for word in words[:3]] == ["机", "器", "人"]
    assert without(CHINESE.text, words, [words[0], words[3], words[-1]]) == "机停。"


def test_the_decoder_is_shown_four_words_in_ten_of_a_piece():
    examples, kind = lesson_of([LONG, *passages(300)], "tsdae", seed=3)
    assert not kind.flat
    shown, whole = (
        [WORD.findall(text) for text in examples.columns[name]] for name in ("noisy", "whole")
    )
    assert max(map(len, whole)) == 64
    assert 0.38 < sum(map(len, shown)) / sum(map(len, whole)) < 0.42
    assert min(map(len, shown)) >= 1
    for few, all_ in zip(shown, whole, strict=True):
        rest = iter(all_)
        assert all(word in rest for word in few)  # in the same order


@methods
def test_what_is_drawn_depends_on_seed_and_passages_alone(method):
    own = passages(20)
    one, other = (lesson_of(part, method, seed=5)[0] for part in (own, own[::-1]))
    assert one == other
    if method != "simcse":
        assert one != lesson_of(own, method, seed=6)[0]
    assert len(lesson_of([*own, *own], method, seed=5)[0]) == 20


def test_no_more_passages_are_read_than_are_said(monkeypatch):
    monkeypatch.setattr(warmup, "MOST_PASSAGES", 7)
    assert len(lesson_of(passages(20), "simcse", seed=0)[0]) == 7


@methods
def test_too_few_passages_are_refused(method):
    for few in ([], [ENGLISH], [ENGLISH, ENGLISH], [ENGLISH, chunk("blank", "  ")]):
        with pytest.raises(NothingUsable, match=f"warmup_documents: {method} needs at least 2"):
            lesson_of(few, method, seed=0)


def test_what_says_the_same_is_no_negative():
    beside = [Chunk(f"d{at}", "doc", at, at + 10, "", "x" * 10) for at in (0, 5, 10)]
    excluded = apart([*beside, ENGLISH, CHINESE], [("en", "zh")])
    assert excluded("d0") == {"d0", "d5"}
    assert excluded("d5") == {"d0", "d5", "d10"}
    assert excluded("en") == excluded("zh") == {"en", "zh"}


# ---- the trainings


def settings_of(**changes) -> TrainingSettings:
    values = {"batch_size": 8, "evaluate_every": 3, "log_every": 3, "precision": "fp32",
              "device": "cpu"}  # fmt: skip
    return TrainingSettings(**{**values, **changes})


@pytest.fixture
def lively(monkeypatch):
    """The model of the tests is random: it takes a higher rate to learn in a few steps."""
    monkeypatch.setitem(warmup.OWN, "learning_rate", 3e-3)


class Stopped(Exception):
    """Stands for a kill."""


def weights(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


@methods
def test_the_loss_falls_and_a_plain_model_is_left(method, lively, tiny_model, tmp_path):
    from sentence_transformers import SentenceTransformer

    found = warm_up(passages(96), str(tiny_model), tmp_path, method, settings=settings_of())
    told = found.as_json()
    assert told["method"] == method
    assert told["passages"] == 96
    assert told["steps"] == 12
    assert told["last_loss"] < 0.95 * told["first_loss"]
    before, after = weights(tiny_model), weights(found.trained.model)
    assert before.keys() == after.keys()  # of a decoder there is nothing left
    moved = [name for name in before if not (before[name] == after[name]).all()]
    assert any("layer.1" in name for name in moved)
    model = SentenceTransformer(str(found.trained.model), device="cpu")
    assert model.encode("mud").shape == (32,)


@methods
def test_after_a_kill_it_goes_on_to_the_same_weights_and_is_not_done_twice(
    method, lively, tiny_model, tmp_path
):
    def run(folder, progress=lambda done, total: None):
        return warm_up(passages(64), str(tiny_model), folder, method, settings=settings_of(),
                       progress=progress)  # fmt: skip

    def stop(done, total):
        if done == 5:
            raise Stopped

    def never(done, total):
        raise AssertionError("a step was done again")

    calm = run(tmp_path / "calm")
    with pytest.raises(Stopped):
        run(tmp_path / "killed", stop)
    again = run(tmp_path / "killed")
    files = [own.trained.model / "model.safetensors" for own in (calm, again)]
    assert sha256_of(files[0]) == sha256_of(files[1])
    assert again.as_json() == calm.as_json()
    known = run(tmp_path / "killed", never)
    assert known.as_json() == calm.as_json()
    assert known.trained.plan == calm.trained.plan


def test_a_text_that_is_compared_with_itself_is_encoded_twice(tiny_model):
    import torch

    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.packed import Packed
    from embedtune.training.portions import Portions

    packed = Packed(load_sentence_transformer(str(tiny_model), device="cpu"))
    ids = packed.token_ids(["mud and radio"], "document") * 2
    for budget in (1000, 1):
        once = Portions(packed, budget).forward(ids)
        anew = Portions(packed, budget, share=False).forward(ids)
        assert not torch.equal(anew[0], anew[1])
        if budget == 1000:
            assert torch.equal(once[0], once[1])


def test_an_encoder_that_cannot_decode_is_refused_with_what_to_do(tiny_model, tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import MPNetConfig, MPNetModel

    model = SentenceTransformer(str(tiny_model), device="cpu")
    model[0].model = MPNetModel(MPNetConfig(
        vocab_size=len(model.tokenizer), hidden_size=32, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=32, max_position_embeddings=80,
    ))  # fmt: skip
    model.save(str(tmp_path / "base"), create_model_card=False)
    with pytest.raises(ConfigError, match="not MPNetModel; use simcse or crops"):
        warm_up(passages(8), str(tmp_path / "base"), tmp_path / "work", "tsdae",
                settings=settings_of())  # fmt: skip


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="not new_tokens"):
        TrainingSettings(warmup_documents="crops", new_tokens=3)
    for own in ({"lora": {"rank": 4}}, {"freeze_layers": 1}):
        with pytest.raises(ValueError, match="use simcse or crops"):
            TrainingSettings(warmup_documents="tsdae", **own)
        TrainingSettings(warmup_documents="simcse", **own)
    with pytest.raises(ConfigError, match=r"training\.warmup_documents: a static model"):
        refuse_unused(TrainingSettings(warmup_documents="crops"))
