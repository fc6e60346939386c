"""Several processes on one training have the batch, the loss and the weights of one."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from embedtune.errors import ConfigError
from embedtune.records import Pair
from embedtune.training import ranks
from embedtune.training.examples import from_pairs
from embedtune.training.plan import TrainingSettings
from embedtune.training.train import train

HERE = Path(__file__).parent
SETTINGS = TrainingSettings(
    epochs=2, batch_size=8, learning_rate=1e-4, evaluate_every=3, log_every=1, precision="fp32",
    device="cpu",
)  # fmt: skip
WORDS = ("dock", "charge", "tow", "price", "firmware", "pad", "probe", "ripe")
PAIRS = [
    Pair(f"q{n}", f"c{n}", f"what is {WORDS[n % 8]} {n}", f"the {WORDS[(n + 3) % 8]} of {n} " * 3)
    for n in range(24)
]


def without_dropout(model: Path, folder: Path) -> Path:
    """A copy whose dropout is off."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(model), device="cpu")
    config = loaded[0].model.config
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    loaded.save(str(folder), create_model_card=False)
    return folder


PROCESS = """
    import json, os, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_ranks import trained
    from embedtune.errors import ResourceError
    from embedtune.training import ranks

    def dies(*arguments, own=ranks.do_share, steps=[]):
        steps.append(1)
        if len(steps) == 5:
            os._exit(9)
        return own(*arguments)

    runs = json.loads(sys.argv[4])  # name of a folder -> settings
    if ranks.rank() and sys.argv[5:] == ["dies"]:
        ranks.do_share = dies
    try:
        if ranks.rank():
            ranks.help_out()
        else:
            with ranks.lead():
                for name, changes in runs.items():
                    trained(Path(sys.argv[2]), Path(sys.argv[3]) / name, changes)
    except ResourceError as error:
        print(error)
        os._exit(6)
"""


def trained(model: Path, work: Path, changes: dict):
    own = {pair.query: frozenset({pair.chunk}) for pair in PAIRS}
    return train(
        [from_pairs("train", PAIRS)], str(model), work, excluded=own.__getitem__,
        score=lambda model: float(model.encode(["what is tow"])[0, 0]),
        settings=SETTINGS.model_copy(update=changes),
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def together(count: int, arguments: list[str]) -> list[subprocess.CompletedProcess]:
    """As many processes as torchrun would start them."""
    port = free_port()
    started = [
        subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
                 "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)},
        )
        for rank in range(count)
    ]  # fmt: skip
    ended = []
    for process in started:
        out, err = process.communicate(timeout=240)
        ended.append(subprocess.CompletedProcess([], process.returncode, out, err))
    return ended


RUNS = {"whole": {}, "portions": {"tokens_at_once": 40, "loss": "cached_mnrl"}}


def test_two_processes_have_the_losses_and_the_weights_of_one(tiny_model, tmp_path):
    """In two trainings, one after the other, as a search for the recipe does."""
    base = without_dropout(tiny_model, tmp_path / "base")
    ended = together(
        2, ["-c", textwrap.dedent(PROCESS), str(HERE), str(base), str(tmp_path), json.dumps(RUNS)]
    )
    assert [process.returncode for process in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    for name, changes in RUNS.items():
        alone = trained(base, tmp_path / "alone" / name, changes)
        one, two = (
            load_file(folder / "model.safetensors")
            for folder in (alone.model, tmp_path / name / "model")
        )
        assert one.keys() == two.keys()
        for part, weights in one.items():
            np.testing.assert_allclose(two[part], weights, atol=1e-6, err_msg=part)
        rows = (tmp_path / name / "history.jsonl").read_text().splitlines()
        losses = [row["loss"] for row in map(json.loads, rows) if "loss" in row]
        assert len(losses) == 6
        assert losses == pytest.approx(
            [row["loss"] for row in alone.history if "loss" in row], rel=2e-6
        )


def test_where_another_process_dies_the_first_ends_and_the_training_can_be_resumed(
    tiny_model, tmp_path
):
    base = without_dropout(tiny_model, tmp_path / "base")
    first, other = together(
        2,
        ["-c", textwrap.dedent(PROCESS), str(HERE), str(base), str(tmp_path),
         json.dumps({"two": {}}), "dies"],
    )  # fmt: skip
    assert (first.returncode, other.returncode) == (6, 9), first.stderr
    assert "another process of this training has ended" in first.stdout
    assert (tmp_path / "two" / "checkpoints" / "checkpoint-3").is_dir()
    alone = trained(base, tmp_path / "alone", {})
    # and alone it goes on: nothing in a checkpoint is of two processes
    again = trained(base, tmp_path / "two", {})
    losses = [[row["loss"] for row in own.history if "loss" in row] for own in (alone, again)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-6)


def test_torchrun_trains_with_two_processes_and_one_of_them_speaks(
    small_beir, tiny_model, tmp_path
):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
         "--master-port", str(free_port()), "-m", "embedtune",
         "train", "--data", str(small_beir), "--base", str(tiny_model), "--out", str(out), "--json",
         "--set", "training.max_steps=6", "--set", "evaluation.probe=none"],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["model"] == str(out)
    assert (out / "model.safetensors").is_file()
    assert not (tmp_path / ".out.work").exists()


def test_a_batch_is_divided_in_order_by_tokens():
    texts = [[1] * n for n in (5, 1, 1, 1, 4, 4)]
    assert ranks.divide(texts, 2) == [texts[:4], texts[4:]]
    assert ranks.divide(texts, 1) == [texts]
    # fewer texts than processes: the first never goes without
    assert ranks.divide(texts[:1], 3) == [texts[:1], [], []]


def test_alone_nothing_is_joined(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert (ranks.rank(), ranks.world()) == (0, 1)
    with ranks.lead():
        assert ranks.group().size == 1
    # variables that a cluster sets for other ends are no torchrun
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert (ranks.rank(), ranks.world()) == (0, 1)


def test_the_plain_trainer_refuses_several_processes(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "_here", ranks.Group(0, 2))
    settings = {"trainer": {"max_grad_norm": 1.0}}
    with pytest.raises(ConfigError, match=r"several processes were started.*Start one process"):
        trained(tiny_model, tmp_path, settings)
