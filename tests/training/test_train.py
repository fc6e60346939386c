"""Training itself, on a tiny random model: it learns, stops when it must, and survives kills."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.records import Pair
from embedtune.training.checkpoints import last_whole_checkpoint, seal
from embedtune.training.examples import from_pairs
from embedtune.training.merge import MergePoint, choose_alpha, merge_into
from embedtune.training.plain import validate_trainer_fields
from embedtune.training.plan import TrainingSettings, plan_training
from embedtune.training.train import train as train_sets

TOPICS = ("robot", "battery", "mud", "fee", "radio", "crate", "winter", "fruit")


def train(pairs, *arguments, **options):
    return train_sets([from_pairs("train", pairs)], *arguments, **options)


def topic_pairs(count: int = 32) -> list[Pair]:
    """Queries and passages that share nothing but a topic the model has to learn."""
    hidden = ("dock", "charge", "tow", "price", "firmware", "pad", "probe", "ripe")
    pairs = []
    for number in range(count):
        topic = number % len(TOPICS)
        passage = f"the {hidden[topic]} is for {hidden[topic]} {number // len(TOPICS)}"
        pairs.append(Pair(f"q{number}", f"c{number}", f"what is {TOPICS[topic]} {number}", passage))
    return pairs


def excluded_of(pairs: list[Pair]):
    same = {pair.query: pair.positive.split()[1] for pair in pairs}
    return {
        pair.query: frozenset(p.chunk for p in pairs if p.positive.split()[1] == same[pair.query])
        for pair in pairs
    }.__getitem__


def accuracy(model) -> float:
    """Share of topics whose passage is nearest."""
    pairs = topic_pairs(8)
    left = model.encode([pair.anchor for pair in pairs])
    right = model.encode([pair.positive for pair in pairs])
    return float(((left @ right.T).argmax(axis=1) == range(8)).mean())


FAST = TrainingSettings(
    epochs=6, batch_size=8, learning_rate=3e-3, evaluate_every=6, log_every=4, precision="fp32"
)


def test_it_learns_and_leaves_a_model_that_plain_sentence_transformers_loads(tiny_model, tmp_path):
    from sentence_transformers import SentenceTransformer

    pairs = topic_pairs()
    seen = []
    trained = train(
        pairs, str(tiny_model), tmp_path, excluded=excluded_of(pairs), score=accuracy,
        settings=FAST, progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert trained.best_score > trained.base_score
    assert accuracy(SentenceTransformer(str(trained.model), device="cpu")) == trained.best_score
    assert seen[-1] == (24, 24)
    steps = [row["step"] for row in trained.history if "dev" in row]
    assert steps == [0, 6, 12, 18, 24]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "model"]


def test_it_learns_from_negatives_and_pairs_may_have_fewer_than_others(tiny_model, tmp_path):
    pairs = topic_pairs()
    excluded = excluded_of(pairs)
    uneven = [
        replace(
            pair,
            negatives=tuple(
                (other.chunk, other.positive)
                for other in pairs
                if other.chunk not in excluded(pair.query)
            )[: number % 4],
        )
        for number, pair in enumerate(pairs)
    ]
    trained = train(
        uneven,
        str(tiny_model),
        tmp_path,
        excluded=excluded,
        score=accuracy,
        settings=FAST,
    )
    assert trained.plan.negatives_per_pair == 3
    assert trained.best_score > trained.base_score


def test_negatives_are_read_with_the_prompt_of_documents(tiny_model, tmp_path):
    """The same passages with the prompt written out give the same losses."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tiny_model), device="cpu")
    model.prompts = {"query": "what is ", "document": "row "}
    prompted = tmp_path / "prompted"
    model.save(str(prompted), create_model_card=False)
    pairs = [
        replace(pair, negatives=(("x", "mud tow"), ("y", "winter"))) for pair in topic_pairs(16)
    ]
    written = [
        Pair(pair.query, pair.chunk, f"what is {pair.anchor}", f"row {pair.positive}",
             tuple((id, f"row {text}") for id, text in pair.negatives))
        for pair in pairs
    ]  # fmt: skip
    short = FAST.model_copy(update={"max_steps": 2, "evaluate_every": 2})
    losses = [
        [row["loss"] for row in trained.history if "loss" in row]
        for trained in (
            train(own, str(base), tmp_path / base.name, excluded=excluded_of(pairs),
                  score=lambda model: 0.5, settings=short)
            for own, base in ((pairs, prompted), (written, tiny_model))
        )
    ]  # fmt: skip
    assert losses[0] == pytest.approx(losses[1])


def test_negatives_change_the_training_and_none_wanted_leaves_it_as_it_was(tiny_model, tmp_path):
    pairs = topic_pairs(16)
    excluded = excluded_of(pairs)
    rich = [
        replace(
            pair,
            negatives=((pairs[(n + 3) % 16].chunk, pairs[(n + 3) % 16].positive), ("?", "mud")),
        )
        for n, pair in enumerate(pairs)
    ]
    short = FAST.model_copy(update={"max_steps": 2, "evaluate_every": 2, "sampler": "random"})
    losses = []
    for number, (own, wanted) in enumerate([(pairs, "auto"), (rich, 0), (rich, 1), (rich, "auto")]):
        trained = train(
            own, str(tiny_model), tmp_path / str(number), excluded=excluded, score=accuracy,
            settings=short.model_copy(update={"negatives_per_pair": wanted}),
        )  # fmt: skip
        losses.append([row["loss"] for row in trained.history if "loss" in row])
    assert losses[0] == losses[1]
    assert losses[1] < losses[2] < losses[3]  # each further passage adds to the denominator


@pytest.mark.parametrize("sampler", ["neighbours", "conflict_free", "random"])
def test_a_passage_with_two_questions_is_encoded_once_a_batch(
    tiny_model, tmp_path, monkeypatch, sampler
):
    from embedtune.embed.packed import Packed

    encoded = []
    forward = Packed.forward

    def counting(self, sequences, **options):
        if options.get("training"):
            encoded.append(len(sequences))
        return forward(self, sequences, **options)

    monkeypatch.setattr(Packed, "forward", counting)
    pairs = [
        Pair(f"q{n}", f"c{n % 96}", f"what is robot {n}", f"the dock is for {n % 96}")
        for n in range(192)
    ]
    trained = train(
        pairs, str(tiny_model), tmp_path, excluded=lambda query: frozenset(),
        score=lambda model: 0.5,
        settings=FAST.model_copy(update={"epochs": 1, "batch_size": 48, "sampler": sampler}),
    )  # fmt: skip
    assert trained.plan.steps == len(encoded) == 4
    passages = sum(encoded) - len(pairs)
    assert passages > 150 if sampler == "random" else passages == 96


@pytest.mark.parametrize("precision", ["bf16"])
def test_low_precision_trains_too(tiny_model, tmp_path, precision):
    pairs = topic_pairs()
    trained = train(
        pairs, str(tiny_model), tmp_path, excluded=excluded_of(pairs), score=accuracy,
        settings=FAST.model_copy(update={"precision": precision}),
    )  # fmt: skip
    assert trained.best_score > trained.base_score


def test_non_finite_loss_stops_at_once_and_publishes_nothing(tiny_model, tmp_path):
    pairs = topic_pairs()
    with pytest.raises(IntegrityError, match=r"step \d+.*learning_rate"):
        train(
            pairs, str(tiny_model), tmp_path, excluded=excluded_of(pairs), score=accuracy,
            settings=FAST.model_copy(update={"learning_rate": 0.99, "weight_decay": 0.99,
                                             "temperature": 1e-38}),
        )  # fmt: skip
    assert not (tmp_path / "model").exists()


def test_loss_of_zero_from_the_start_stops(tiny_model, tmp_path):
    pairs = topic_pairs()
    everything = frozenset(pair.chunk for pair in pairs)
    with pytest.raises(IntegrityError, match="the gradient has been 0"):
        train(
            pairs, str(tiny_model), tmp_path, excluded=lambda query: everything, score=accuracy,
            settings=FAST,
        )  # fmt: skip


@pytest.mark.parametrize(
    "pairs",
    [[], [Pair("q", "c", "a", "b")], [Pair(f"q{i}", "c", f"a{i}", "same") for i in range(5)],
     [Pair(f"q{i}", f"c{i}", f"t{i}", f"t{i}") for i in range(5)]],
)  # fmt: skip
def test_too_little_to_learn_from(tiny_model, tmp_path, pairs):
    with pytest.raises(NothingUsable, match="at least 2 pairs"):
        train(pairs, str(tiny_model), tmp_path, excluded=lambda query: frozenset(), score=accuracy,
              settings=FAST)  # fmt: skip


def test_patience_stops_early(tiny_model, tmp_path):
    pairs = topic_pairs()
    falling = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])
    trained = train(
        pairs, str(tiny_model), tmp_path, excluded=excluded_of(pairs),
        score=lambda model: next(falling),
        settings=FAST.model_copy(update={"patience": 1}),
    )  # fmt: skip
    assert trained.history[-1]["step"] == 12
    assert trained.best_step == 6


def test_a_kill_after_patience_was_over_trains_no_further(tiny_model, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    pairs = topic_pairs()
    falling = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3])

    def fit():
        return train(
            pairs, str(tiny_model), tmp_path, excluded=excluded_of(pairs),
            score=lambda model: next(falling),
            settings=FAST.model_copy(update={"patience": 1}),
        )  # fmt: skip

    with monkeypatch.context() as patch:
        patch.setattr("embedtune.training.train.publish", killed)
        with pytest.raises(Killed):
            fit()
    again = fit()
    assert (again.history[-1]["step"], again.best_step) == (12, 6)


def checkpoint(folder: Path, step: int) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights" * step)
    (path / "trainer_state.json").write_text(json.dumps({"step": step}))
    seal(path)
    return path


@pytest.mark.parametrize("damage", ["empty folder", "missing file", "length 0", "one byte"])
def test_damaged_checkpoint_is_set_aside_and_the_older_one_used(tmp_path, damage):
    good = checkpoint(tmp_path, 10)
    bad = checkpoint(tmp_path, 20)
    if damage == "empty folder":
        shutil.rmtree(bad)
        bad.mkdir()
    elif damage == "missing file":
        (bad / "model.safetensors").unlink()
    elif damage == "length 0":
        (bad / "model.safetensors").write_bytes(b"")
    else:
        data = bytearray((bad / "model.safetensors").read_bytes())
        data[3] ^= 1
        (bad / "model.safetensors").write_bytes(bytes(data))
    assert last_whole_checkpoint(tmp_path) == good
    assert (tmp_path / "damaged-checkpoint-20").is_dir()


def test_auto_values_follow_the_data():
    settings = TrainingSettings(device="cpu")
    assert plan_training(settings, 999, 384).epochs == 6
    assert plan_training(settings, 4999, 384).epochs == 4
    for corpus in (0, 1022, 10**6):  # what evaluations cost says nothing of the memory
        assert plan_training(settings, 682, 384, corpus, affordable=27_045).tokens_at_once == 27_045
    assert plan_training(settings, 5000, 384).epochs == 2
    assert plan_training(settings, 20_000, 384).epochs == 1
    plan = plan_training(settings, 20, 384)
    assert (plan.batch_size, plan.dimensions) == (6, (384, 256, 128, 64))
    sizes = {n: plan_training(settings, 500, 384, negatives=n) for n in (0, 1, 2, 4, 9, 50)}
    assert [plan.batch_size for plan in sizes.values()] == [96, 96, 80, 48, 24, 8]
    assert sizes[4].negatives_per_pair == 4
    few = plan_training(TrainingSettings(negatives_per_pair=1, device="cpu"), 500, 384, negatives=9)
    assert (few.negatives_per_pair, few.batch_size) == (1, 96)
    assert plan_training(settings, 500, 384, whole=True).batch_size == 32
    assert plan_training(settings, 500, 1024).dimensions == (1024, 512, 256, 128, 64)
    assert plan_training(TrainingSettings(matryoshka="off", device="cpu"), 500, 384).dimensions == (
        384,
    )
    assert plan_training(TrainingSettings(matryoshka=[256], device="cpu"), 9, 384).dimensions == (
        384,
        256,
    )


def test_dimension_above_the_model_is_refused():
    with pytest.raises(ConfigError, match=r"\[768, 512\] above the model's dimension 384"):
        plan_training(TrainingSettings(matryoshka=[768, 512, 128], device="cpu"), 100, 384)


def test_trainer_pass_through_is_checked_against_the_library():
    assert validate_trainer_fields({"max_grad_norm": "0.5", "adam_beta2": "0.98"}) == {
        "max_grad_norm": 0.5,
        "adam_beta2": 0.98,
    }
    with pytest.raises(ConfigError) as caught:
        validate_trainer_fields({"max_grad_nrm": "1", "learning_rate": "1", "max_grad_norm": "x"})
    faults = "\n".join(caught.value.faults)
    assert "did you mean max_grad_norm" in faults
    assert "training.learning_rate" in faults
    assert len(caught.value.faults) == 3


def test_merge_is_the_weighted_mean_of_the_weights(tiny_model):
    import torch

    from embedtune.embed.loading import load_sentence_transformer

    base, tuned, target = (load_sentence_transformer(str(tiny_model), device="cpu") for _ in "abc")
    with torch.no_grad():
        for weights in tuned.parameters():
            weights += 1
    merge_into(target, base, tuned, 0.25)
    for one, other in zip(target.parameters(), base.parameters(), strict=True):
        assert torch.allclose(one, other + 0.25, atol=1e-6)


def test_alpha_is_the_best_on_dev_among_those_that_hold_the_probe():
    curve = [MergePoint(0.0, 0.9), MergePoint(0.4, 0.7), MergePoint(0.6, 0.7), MergePoint(1.0, 0.8)]
    asked = []

    def probe(alpha: float) -> tuple[float, bool]:
        asked.append(alpha)
        return alpha / 20, alpha < 1

    chosen, told = choose_alpha(curve, probe)
    assert (chosen.alpha, asked) == (0.6, [0.4, 0.6, 1.0])
    assert [(point.holds, point.probe_loss) for point in told] == [
        (True, 0.0), (True, 0.02), (True, 0.03), (False, 0.05),
    ]  # fmt: skip
    assert [point.alpha for point in told if point.chosen] == [0.6]
    assert choose_alpha(curve, None)[0].alpha == 1.0
    assert choose_alpha(curve, lambda alpha: (0.5, False))[0].alpha == 1.0
