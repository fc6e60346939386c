"""No broken model, whatever happens: numbers that are no numbers, full disks, short memory, kills.

Both engines: ``fast`` is the flat forward, ``plain`` the library's trainer.
"""

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from embedtune.errors import IntegrityError, NothingUsable, ResourceError
from embedtune.files import sha256_of
from embedtune.records import Pair
from embedtune.training import memory
from embedtune.training.best import Health, History, best_so_far, publish, take_back
from embedtune.training.checkpoints import last_whole_checkpoint
from embedtune.training.examples import from_pairs, from_scored
from embedtune.training.plan import TrainingSettings
from embedtune.training.portions import Portions, ShortOfMemory, attempt
from embedtune.training.train import train

ROOT = Path(__file__).parents[2]
WORDS = ("dock", "charge", "tow", "price", "firmware", "pad", "probe", "ripe")
PAIRS = [
    Pair(f"q{n}", f"c{n}", f"what is {WORDS[n % 8]} {n}", f"the {WORDS[(n + 3) % 8]} of {n}")
    for n in range(32)
]
engines = pytest.mark.parametrize("engine", ["fast", "plain"])


def settings_of(engine: str, **changes) -> TrainingSettings:
    own = {"max_grad_norm": 1.0} if engine == "plain" else {}
    values = {"epochs": 3, "batch_size": 8, "learning_rate": 1e-3, "evaluate_every": 4,
              "log_every": 2, "precision": "fp32", "device": "cpu", "keep": "last",
              "trainer": own}  # fmt: skip
    return TrainingSettings(**{**values, **changes})


def own_chunk(query: str) -> frozenset[str]:
    return frozenset({f"c{query[1:]}"})


def growing():
    """A score that is better every time."""
    scores = iter(range(1, 1000))
    return lambda model: next(scores) / 1000


def trained(
    model: Path, work: Path, engine: str, *, sets=None, score=None, progress=None, **changes
):
    return train(
        sets or [from_pairs("train", PAIRS)], str(model), work, excluded=own_chunk,
        score=score or growing(), settings=settings_of(engine, **changes),
        **({"progress": progress} if progress else {}),
    )  # fmt: skip


class Stopped(Exception):
    """Stands for a kill in this process."""


def stop_at(step: int):
    def progress(done: int, total: int) -> None:
        if done == step:
            raise Stopped

    return progress


def finite(path: Path) -> bool:
    import numpy as np
    from safetensors.numpy import load_file

    return all(np.isfinite(own).all() for own in load_file(path).values())


# ---- T01, T02: numbers that are none, and nothing to learn


@pytest.fixture
def broken_loss(monkeypatch):
    """From the sixth batch on, the ranking loss gives ``value``."""

    def broken(value: float, *, backward: bool = False) -> None:
        import torch

        from embedtune.training import builders

        build = builders.ranking_loss

        class Spoilt(torch.autograd.Function):
            @staticmethod
            def forward(context, loss):
                return loss.clone()

            @staticmethod
            def backward(context, gradient):
                return gradient * value

        def spoilt(*arguments, **options):
            loss = build(*arguments, **options)
            first, calls = loss.compute_loss_from_embeddings, []

            def compute(embeddings, labels):
                calls.append(1)
                found = first(embeddings, labels)
                if len(calls) < 6:
                    return found
                return Spoilt.apply(found) if backward else found * value

            loss.compute_loss_from_embeddings = compute
            return loss

        monkeypatch.setattr(builders, "ranking_loss", spoilt)

    return broken


@engines
@pytest.mark.parametrize(
    ("value", "backward", "said"),
    [(float("nan"), False, "the loss is nan"), (float("inf"), False, "the loss is inf"),
     (float("nan"), True, "the gradient is nan"),
     (float("inf"), True, r"the gradient is (inf|nan)")],
)  # fmt: skip
def test_a_loss_or_gradient_that_is_no_number_stops_with_step_and_rows(
    tiny_model, tmp_path, broken_loss, engine, value, backward, said
):
    broken_loss(value, backward=backward)
    with pytest.raises(IntegrityError, match=f"{said}; nothing is published") as caught:
        trained(tiny_model, tmp_path, engine, matryoshka="off", sampler="conflict_free")
    assert caught.value.exit_code == 7
    step, rows = re.match(r"step (\d+), rows ([\d, ]+):", str(caught.value)).groups()
    from embedtune.training.batches import batches

    expected = [  # 4 batches an epoch; the sixth is the second one's second
        list(batches(PAIRS, own_chunk, avoid_conflicts=True, size=8, seed=42, epoch=1))[1]
    ]
    assert (int(step), [[int(row) for row in rows.split(", ")]]) == (6, expected)
    assert not (tmp_path / "model").exists()
    kept = last_whole_checkpoint(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.name == "checkpoint-4"
    assert finite(tmp_path / "best" / "step-4" / "model.safetensors")
    losses = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert 0.0 not in [row.get("loss") for row in losses]


@engines
def test_a_loss_of_zero_from_the_start_stops_with_likely_reasons(tiny_model, tmp_path, engine):
    every = frozenset(pair.chunk for pair in PAIRS)
    with pytest.raises(IntegrityError, match=r"gradient has been 0 for 3 steps.*copies.*frozen"):
        train([from_pairs("train", PAIRS)], str(tiny_model), tmp_path, score=growing(),
              excluded=lambda query: every, settings=settings_of(engine))  # fmt: skip
    assert not (tmp_path / "model").exists()


@engines
@pytest.mark.parametrize(
    "pairs",
    [[], PAIRS[:1], [Pair(f"q{n}", "c", f"a {n}", "same") for n in range(9)],
     [Pair(f"q{n}", f"c{n}", f"t {n}", f"t {n}") for n in range(9)],
     [Pair(f"q{n}", f"c{n}", "", "") for n in range(9)]],
    ids=["none", "one", "identical", "anchor is positive", "empty"],
)  # fmt: skip
def test_nothing_to_tell_apart_is_said_before_the_first_step(tiny_model, tmp_path, engine, pairs):
    with pytest.raises(NothingUsable, match="at least 2"):
        trained(tiny_model, tmp_path, engine, sets=[from_pairs("train", pairs)])
    assert not any(tmp_path.iterdir())


def test_losses_of_zero_later_are_no_fault():
    health = Health(1e-3)
    for step, norm in enumerate([0.7, 0.0, 0.0, 0.0, 0.0], 1):
        health.check_gradient(step, norm)
    late = Health(1e-3)
    late.check_gradient(1, 0.0)
    late.check_gradient(2, 0.0)
    with pytest.raises(IntegrityError, match="step 3"):
        late.check_gradient(3, 0.0)
    after_a_kill = Health(1e-3, begun=40)
    for step in range(41, 50):
        after_a_kill.check_gradient(step, 0.0)


@engines
def test_a_loss_that_rounds_to_zero_is_no_fault_while_there_is_a_gradient(
    tiny_model, tmp_path, engine
):
    """Passages far apart at a low temperature: in 32 bits the loss is 0."""
    texts = [" ".join([f"word{n}"] * 8) for n in range(9)]
    pairs = [Pair(f"q{n}", f"c{n}", text, f"{text} indeed") for n, text in enumerate(texts)]
    done = trained(tiny_model, tmp_path, engine, sets=[from_pairs("train", pairs)],
                   temperature=1e-3, learning_rate=1e-6, batch_size=3)  # fmt: skip
    losses = [row["loss"] for row in done.history if "loss" in row]
    assert losses[0] < 1e-9


@engines
def test_the_worst_score_there_is_leaves_a_model_too(tiny_model, tmp_path, engine):
    """Spearman's on two dev rows may be -1."""
    done = trained(tiny_model, tmp_path, engine, score=lambda model: -1.0, keep="best")
    assert (done.model / "model.safetensors").is_file()
    assert done.best_score == -1.0


# ---- T03: kills


def test_killed_three_times_once_inside_a_save_it_ends_with_the_same_weights(tmp_path):
    """The harness of ``make prove``, with few kills."""
    told = tmp_path / "rounds.jsonl"
    done = subprocess.run(
        [sys.executable, "benchmarks/training_kills.py", "--kills", "3", "--in-saves", "1",
         "--progress", str(told)],
        cwd=ROOT, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rounds = [json.loads(line) for line in told.read_text().splitlines()]
    assert sum(own["kills"] for own in rounds) >= 3
    assert sum(own["in_saves"] for own in rounds) >= 1
    assert all(own["identical"] for own in rounds)


@engines
def test_stopped_between_publishing_and_tidying_up_it_ends_with_the_same_model(
    tiny_model, tmp_path, engine, monkeypatch
):
    from embedtune.training import train as module

    calm = trained(tiny_model, tmp_path / "calm", engine)

    def published(folder, final):
        publish(folder, final)
        raise Stopped

    monkeypatch.setattr(module, "publish", published)
    with pytest.raises(Stopped):
        trained(tiny_model, tmp_path / "stopped", engine)
    monkeypatch.undo()
    again = trained(tiny_model, tmp_path / "stopped", engine)
    assert again.best_step == calm.best_step
    assert sha256_of(again.model / "model.safetensors") == sha256_of(
        calm.model / "model.safetensors"
    )


def test_a_model_is_taken_back_only_where_it_is_missing(tmp_path):
    best, final = tmp_path / "best", tmp_path / "model"
    final.mkdir()
    take_back(best, final)  # of another training: nothing was begun here
    assert final.is_dir()
    (best / "step-4").mkdir(parents=True)
    (best / "score.json").write_text('{"step": 4, "score": 0.5, "folder": "step-4"}')
    take_back(best, final)
    assert final.is_dir()
    assert publish(best, final)["step"] == 4
    take_back(best, final)
    assert (best / "step-4").is_dir()
    assert not final.exists()
    assert best_so_far(best)["folder"] == "step-4"


SCORED = from_scored(
    "scored",
    [(f"what is {WORDS[n % 8]}", f"the {WORDS[n % 5]} {n}", float(n % 2)) for n in range(32)],
)


@engines
def test_a_loss_with_weights_of_its_own_goes_on_to_the_same_weights(tiny_model, tmp_path, engine):
    """The classifier of ``softmax`` is in no checkpoint of the library's trainer."""
    calm = trained(tiny_model, tmp_path / "calm", engine, sets=[SCORED], loss="softmax")
    with pytest.raises(Stopped):
        trained(tiny_model, tmp_path / "stopped", engine, sets=[SCORED], loss="softmax",
                progress=stop_at(6))  # fmt: skip
    again = trained(tiny_model, tmp_path / "stopped", engine, sets=[SCORED], loss="softmax")
    losses = [[row["loss"] for row in own.history if "loss" in row] for own in (calm, again)]
    assert losses[0] == losses[1]
    assert sha256_of(again.model / "model.safetensors") == sha256_of(
        calm.model / "model.safetensors"
    )


# ---- T05: full disks


@contextlib.contextmanager
def files_up_to(size: int):
    """Writes beyond ``size`` bytes fail, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


@engines
@pytest.mark.parametrize("room", [20_000, 120_000], ids=["weights", "moments"])
def test_a_disk_that_becomes_full_is_told_with_its_numbers_and_can_be_resumed(
    tiny_model, tmp_path, engine, room
):
    """A limit on the size of files stands for the disk: it comes after the first checkpoint."""
    calm = trained(tiny_model, tmp_path / "calm", engine)
    work = tmp_path / "full"
    with contextlib.ExitStack() as disk:

        def progress(done: int, total: int) -> None:
            if done == 6:
                disk.enter_context(files_up_to(room))

        with pytest.raises(ResourceError) as caught:
            trained(tiny_model, work, engine, progress=progress)
    assert caught.value.exit_code == 6
    assert re.search(rf"{work}.*no space left: .* needs about [\d,]+ bytes, [\d,]+ are free",
                     str(caught.value))  # fmt: skip
    assert last_whole_checkpoint(work / "checkpoints").name == "checkpoint-4"
    again = trained(tiny_model, work, engine)
    assert sha256_of(again.model / "model.safetensors") == sha256_of(
        calm.model / "model.safetensors"
    )


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 KB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)],
        capture_output=True, check=False,
    )  # fmt: skip
    if done.returncode:
        assert not os.environ.get("CI"), f"CI must be able to mount: {done.stderr!r}"
        pytest.skip("only root may mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@engines
def test_a_disk_without_room_for_checkpoints_is_told_before_the_first_step(
    tiny_model, small_disk, engine
):
    steps = []
    with pytest.raises(ResourceError, match=r"needs about [\d.]+ GB .* [\d.]+ GB are free"):
        trained(tiny_model, small_disk / "work", engine,
                progress=lambda done, total: steps.append(done))  # fmt: skip
    assert steps == []


@engines
def test_a_real_disk_that_is_full_is_told(tiny_model, small_disk, engine, monkeypatch):
    monkeypatch.setattr(memory, "COPIES", 0)  # as if another had filled it since
    with pytest.raises(ResourceError, match=r"no space left: .* bytes, [\d,]+ are free") as caught:
        trained(tiny_model, small_disk / "work", engine)
    assert caught.value.exit_code == 6
    assert not (small_disk / "work" / "model").exists()


# ---- T06: short memory


class Narrow:
    """A flat forward that fails as torch does above ``most`` tokens at a time."""

    def __init__(self, packed, most: int, *, backward: bool = False) -> None:
        self.packed, self.most, self.backward, self.calls = packed, most, backward, []

    def forward(self, sequences, training=False, share=True):
        import torch

        tokens = sum(map(len, sequences))
        self.calls.append(tokens)
        found = self.packed.forward(sequences, training=training, share=share)
        if tokens <= self.most:
            return found
        if not self.backward:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")

        class Fails(torch.autograd.Function):
            @staticmethod
            def forward(context, vectors):
                return vectors.clone()

            @staticmethod
            def backward(context, gradient):
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")

        return Fails.apply(found) if found.requires_grad else found


def gradients_of(tiny_model, most: int, *, backward: bool = False):
    """(gradients of a step, tokens of each forward pass) where so many tokens fit."""
    import torch

    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.packed import Packed
    from embedtune.training import ranks

    model = load_sentence_transformer(str(tiny_model), device="cpu")
    for module in model.modules():  # what is dropped depends on the portions
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    packed = Narrow(Packed(model, precision="fp32"), most, backward=backward)
    texts = packed.packed.token_ids([pair.positive for pair in PAIRS[:12]], "document")
    portions = Portions(packed, 10_000)
    weights = [own for own in model.parameters() if own.requires_grad]

    def loss_of(vectors):
        scores = vectors @ vectors.T / 0.05
        return torch.nn.functional.cross_entropy(scores.roll(1, 1), torch.arange(len(vectors)))

    while True:
        try:
            ranks.do_share(ranks.Group(), portions, [texts], weights, loss_of)
        except ShortOfMemory:
            for own in weights:
                own.grad = None
        else:
            break
    return [own.grad for own in weights], packed.calls


@pytest.mark.parametrize("backward", [False, True])
def test_where_memory_is_short_smaller_portions_give_the_same_gradients(tiny_model, backward):
    import torch

    wide, calls = gradients_of(tiny_model, 10_000)
    assert len(calls) == 1
    narrow, calls = gradients_of(tiny_model, 40, backward=backward)
    assert max(calls[-4:]) <= 40 < calls[0]
    for one, other in zip(wide, narrow, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.allclose(one, other, atol=1e-6)


def test_one_text_too_many_says_batch_size_length_and_what_to_lower(tiny_model):
    with pytest.raises(ResourceError) as caught:
        gradients_of(tiny_model, 1)
    assert caught.value.exit_code == 6
    assert re.search(r"batch of 12 texts with one of \d+ tokens.*lower training\.batch_size",
                     str(caught.value))  # fmt: skip


def test_other_faults_are_not_taken_for_short_memory():
    def fails():
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="multiplied"):
        attempt(fails, Portions(None, 10), lambda state: state)


@engines
def test_out_of_memory_outside_of_a_step_tells_what_to_lower(tiny_model, tmp_path, engine):
    def short(model):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:133] can't allocate memory")

    scores = iter([0.1])  # of the base; the one of the first checkpoint finds no memory
    with pytest.raises(
        ResourceError, match=r"batch size 8 .* lower training\.batch_size"
    ) as caught:
        trained(tiny_model, tmp_path, engine,
                score=lambda model: next(scores, None) or short(model))  # fmt: skip
    assert caught.value.exit_code == 6


LIMITED = """
    import logging, resource, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    import torch
    from transformers import BertConfig, BertModel
    from sentence_transformers import SentenceTransformer
    from test_safety import PAIRS, own_chunk, settings_of
    from embedtune.records import Pair
    from embedtune.training.examples import from_pairs
    from embedtune.training.train import train

    logging.basicConfig(level=logging.WARNING)
    folder = Path(sys.argv[3])
    small = SentenceTransformer(sys.argv[2], device="cpu")
    size = len(small.tokenizer)
    torch.manual_seed(0)
    small[0].model = BertModel(BertConfig(vocab_size=size, hidden_size=128, num_hidden_layers=8,
        num_attention_heads=2, intermediate_size=512, max_position_embeddings=64))
    small[1].embedding_dimension = 128
    small.save(str(folder / "base"), create_model_card=False)
    pairs = [Pair(f"q{n}", f"c{n}", f"what is {n}", (f"{PAIRS[n % 32].positive} {n} ") * 12)
             for n in range(256)]
    called = []

    def score(model):
        if not called:  # the base's: everything is loaded, nothing trained
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            limit = used + int(sys.argv[4]) * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        called.append(1)
        return float(len(called))

    train([from_pairs("train", pairs)], str(folder / "base"), folder / "work",
          excluded=own_chunk, score=score,
          settings=settings_of("fast", batch_size=128, max_steps=1, tokens_at_once=1_000_000))
"""


def test_with_little_memory_it_goes_on_in_smaller_portions(tiny_model, tmp_path):
    """A real limit on a real process: a batch of 9,000 tokens at once takes more than there is."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(Path(__file__).parent),
         str(tiny_model), str(tmp_path), "450"],
        capture_output=True, text=True, timeout=300, check=False,
        # what is freed goes back to the system at once: the limit is one of addresses
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1",
             "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "memory is short: going on with" in done.stderr
    assert finite(tmp_path / "work" / "model" / "model.safetensors")


# ---- T04 is in test_train.py, T07 in test_losses.py, T08 in tests/test_run.py, T09 in
# tests/embed/test_models.py, T10 in tests/test_run.py


def test_a_clock_that_jumps_back_changes_nothing(tiny_model, tmp_path, monkeypatch):
    """T11: order comes from counters, durations from the monotonic clock."""
    calm = trained(tiny_model, tmp_path / "calm", "fast")
    clock = iter(range(2_000_000_000, 0, -3_600))
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    jumping = trained(tiny_model, tmp_path / "jumping", "fast")
    assert jumping.history == calm.history
    assert sha256_of(jumping.model / "model.safetensors") == sha256_of(
        calm.model / "model.safetensors"
    )


def test_no_duration_is_taken_from_the_wall_clock():
    wall = [
        f"{path.name}:{number}"
        for path in (ROOT / "src").rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(r"\btime\.time(_ns)?\(", line)
    ]
    assert wall == []


# ---- history and trackers


@engines
def test_the_tracker_has_every_loss_and_dev_score(tiny_model, tmp_path, engine):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    told = trained(tiny_model, tmp_path, engine, report_to=["tensorboard"])
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name in ("loss", "dev", "learning_rate", "mean_cosine", "effective_rank"):
        rows = {row["step"]: row[name] for row in told.history if name in row and row["step"]}
        found = {event.step: event.value for event in events.Scalars(name)}
        assert found == pytest.approx(rows), name


def test_the_history_is_on_disk_row_by_row(tmp_path):
    history = History(tmp_path / "history.jsonl", [{"step": 2, "epoch": 0.5, "loss": 1.0}])
    history.add({"step": 4, "epoch": 1.0, "loss": 0.5})
    history.add({"step": 4, "epoch": 1.0, "dev": 0.7})
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert rows == history.rows
    assert [row["step"] for row in rows] == [2, 4, 4]
    assert history.evaluated == [4]


def test_the_trackers_files_stay_beside_the_model(command, small_beir, tiny_model, tmp_path):
    out = tmp_path / "out"
    result = command(
        "train", "--data", small_beir, "--base", tiny_model, "--out", out,
        "--set", "training.max_steps=4", "--set", "evaluation.probe=none",
        "--set", "training.report_to=[tensorboard]",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert list((out / "tensorboard").glob("events*"))
    assert (out / "model.safetensors").is_file()
