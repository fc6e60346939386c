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
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[1])
    from test_ranks import trained
    from embedtune.training import ranks

    if ranks.rank():
        ranks.help_out()
    else:
        with ranks.lead():
            trained(Path(sys.argv[2]), Path(sys.argv[3]), eval(sys.argv[4]))
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


@pytest.mark.parametrize("changes", [{}, {"tokens_at_once": 40, "loss": "cached_mnrl"}])
def test_two_processes_have_the_losses_and_the_weights_of_one(tiny_model, tmp_path, changes):
    from safetensors.numpy import load_file

    base = without_dropout(tiny_model, tmp_path / "base")
    alone = trained(base, tmp_path / "alone", changes)
    ended = together(
        2,
        ["-c", textwrap.dedent(PROCESS), str(HERE), str(base), str(tmp_path / "two"),
         repr(changes)],
    )  # fmt: skip
    assert [process.returncode for process in ended] == [0, 0], ended[0].stderr + ended[1].stderr
    one = load_file(alone.model / "model.safetensors")
    two = load_file(tmp_path / "two" / "model" / "model.safetensors")
    assert one.keys() == two.keys()
    for name, weights in one.items():
        np.testing.assert_allclose(two[name], weights, atol=1e-6, err_msg=name)
    rows = (tmp_path / "two" / "history.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, rows) if "loss" in row]
    assert losses == pytest.approx(
        [row["loss"] for row in alone.history if "loss" in row], abs=1e-6
    )
    assert len(losses) > 2


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
