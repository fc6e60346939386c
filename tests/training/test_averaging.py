"""Weights averaged: over the last half of a training, and over trainings with other seeds."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from embedtune.files import sha256_of
from embedtune.records import Pair
from embedtune.training import train as module
from embedtune.training.best import publish
from embedtune.training.examples import from_pairs
from embedtune.training.plan import TrainingSettings
from embedtune.training.soup import train_seeds
from embedtune.training.train import OUTCOME, clear, train

WORDS = ("dock", "charge", "tow", "price", "firmware", "pad", "probe", "ripe")
PAIRS = [
    Pair(f"q{n}", f"c{n}", f"what is {WORDS[n % 8]} {n}", f"the {WORDS[(n + 3) % 8]} of {n}")
    for n in range(32)
]
engines = pytest.mark.parametrize("engine", ["fast", "plain"])


class Stopped(Exception):
    """Stands for a kill."""


def settings_of(engine: str = "fast", **changes) -> TrainingSettings:
    own = {"max_grad_norm": 1.0} if engine == "plain" else {}
    values = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "evaluate_every": 3,
              "log_every": 3, "precision": "fp32", "device": "cpu", "keep": "average",
              "trainer": own}  # fmt: skip
    return TrainingSettings(**{**values, **changes})


def trained(model, work, settings, score=None, progress=lambda done, total: None):
    """12 steps, evaluated after 3, 6, 9 and 12."""
    return train(
        [from_pairs("train", PAIRS)], str(model), work,
        excluded=lambda query: frozenset({f"c{query[1:]}"}), score=score or (lambda model: 0.5),
        settings=settings, progress=progress,
    )  # fmt: skip


def weights(folder) -> dict:
    return load_file(folder / "model.safetensors")


def mean_of(parts: list[dict]) -> dict:
    return {name: np.mean([own[name] for own in parts], axis=0) for name in parts[0]}


def assert_alike(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-7)


@engines
def test_the_mean_of_the_last_half_is_kept(tiny_model, tmp_path, engine):
    seen = []

    def score(model) -> float:
        state = model.state_dict()
        seen.append({name: own.numpy().copy() for name, own in state.items()})
        return 0.9 - len(seen) / 100  # ever worse: the mean is asked for all the same

    found = trained(tiny_model, tmp_path, settings_of(engine), score)
    assert len(seen) == 6  # base, four checkpoints, mean
    kept = weights(found.model)
    wanted = mean_of([{name: own[f"0.model.{name}"] for name in kept} for own in seen[2:5]])
    assert_alike(kept, wanted)
    assert (found.best_step, found.best_score) == (12, pytest.approx(0.84))
    assert "steps 6, 9, 12" in found.notes[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "model"]


@pytest.mark.parametrize(("mean", "step", "said"), [(0.5, 12, True), (0.35, 9, False)])
def test_left_to_dev_the_better_of_mean_and_checkpoint_is_kept(
    tiny_model, tmp_path, mean, step, said
):
    scores = iter([0.1, 0.2, 0.3, 0.4, 0.3, mean])
    found = trained(tiny_model, tmp_path, settings_of(keep="auto"), lambda model: next(scores))
    assert found.best_score == max(0.4, mean)
    assert found.best_step == step
    assert bool(found.notes) == said


@pytest.mark.parametrize("keep", ["best", "last"])
def test_nothing_is_averaged_where_a_checkpoint_is_asked_for(tiny_model, tmp_path, keep):
    scores = iter([0.1, 0.2, 0.3, 0.4, 0.3])
    found = trained(tiny_model, tmp_path, settings_of(keep=keep), lambda model: next(scores))
    assert found.best_step == {"best": 9, "last": 12}[keep]


@engines
@pytest.mark.parametrize("step", [7, 10])
def test_after_a_kill_it_is_the_same_mean(tiny_model, tmp_path, engine, step):
    def stop(done, total):
        if done == step:
            raise Stopped

    calm = trained(tiny_model, tmp_path / "calm", settings_of(engine))
    with pytest.raises(Stopped):
        trained(tiny_model, tmp_path / "killed", settings_of(engine), progress=stop)
    again = trained(tiny_model, tmp_path / "killed", settings_of(engine))
    digests = {sha256_of(own.model / "model.safetensors") for own in (calm, again)}
    assert len(digests) == 1


def test_stopped_after_the_mean_was_published_it_ends_with_the_same(
    tiny_model, tmp_path, monkeypatch
):
    def published(folder, final):
        publish(folder, final)
        raise Stopped

    calm = trained(tiny_model, tmp_path / "calm", settings_of(keep="auto"))
    monkeypatch.setattr(module, "publish", published)
    with pytest.raises(Stopped):
        trained(tiny_model, tmp_path / "killed", settings_of(keep="auto"))
    monkeypatch.undo()
    again = trained(tiny_model, tmp_path / "killed", settings_of(keep="auto"))
    assert again.best_step == calm.best_step
    digests = {sha256_of(own.model / "model.safetensors") for own in (calm, again)}
    assert len(digests) == 1


# ---- several seeds


class Bench:
    """Trainings of the tiny model, counted."""

    def __init__(self, model, stop_in: int | None = None) -> None:
        self.model, self.stop_in, self.begun = model, stop_in, []

    def one(self, seed, folder):
        self.begun.append(seed)

        def progress(done, total):
            if seed == self.stop_in and done == 7:
                raise Stopped

        return trained(self.model, folder, settings_of(seed=seed, keep="last"), progress=progress)

    def all(self, count, work):
        return train_seeds(count, 5, work, self.one, score=lambda model: 0.7, device="cpu")


def test_the_mean_of_the_seeds_is_left_and_a_kill_loses_no_training(tiny_model, tmp_path):
    killed = Bench(tiny_model, stop_in=6)
    with pytest.raises(Stopped):
        killed.all(3, tmp_path / "several")
    assert killed.begun == [5, 6]
    after = Bench(tiny_model)
    found = after.all(3, tmp_path / "several")
    assert after.begun == [6, 7]
    alone = Bench(tiny_model)
    parts = [weights(alone.one(seed, tmp_path / f"alone-{seed}").model) for seed in (5, 6, 7)]
    assert not all(np.array_equal(parts[0][name], parts[1][name]) for name in parts[0])
    assert_alike(weights(found.model), mean_of(parts))
    assert found.model == tmp_path / "several" / "model"
    assert (found.best_score, found.base_score) == (0.7, 0.5)
    assert "0.500, 0.500, 0.500 on dev" in found.notes[-1]
    assert (tmp_path / "several" / "history.jsonl").is_file()


def test_one_seed_is_a_training_like_any_other(tiny_model, tmp_path):
    found = Bench(tiny_model).all(1, tmp_path)
    assert found.model == tmp_path / "model"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.jsonl", "model"]


def test_a_folder_that_is_being_removed_does_not_seem_done(tiny_model, tmp_path, monkeypatch):
    Bench(tiny_model).all(2, tmp_path)
    monkeypatch.setattr(module.shutil, "rmtree", lambda *_, **__: None)  # a kill in the middle
    assert (tmp_path / "seed-5" / OUTCOME).is_file()
    clear(tmp_path / "seed-5")
    assert not (tmp_path / "seed-5" / OUTCOME).exists()
