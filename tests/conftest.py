"""Fixtures for all tests. No test reaches beyond this machine."""

import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
CHROMIUM = Path("/usr/bin/chromium")
LOCAL = ("127.0.0.1", "::1", "localhost")


def pytest_collection_modifyitems(items):
    """Tests that need what is not here are skipped on a laptop and fail in CI."""
    for item in items:
        for marker, needed in (("shared", SHARED), ("browser", CHROMIUM)):
            if item.get_closest_marker(marker) and not needed.exists():
                if os.environ.get("CI"):
                    raise pytest.UsageError(f"{item.nodeid} needs {needed}, which CI must have")
                item.add_marker(pytest.mark.skip(reason=f"{needed} is not here"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Connections leave this machine in no test."""
    connect = socket.socket.connect

    def guarded(self, address):
        if isinstance(address, tuple) and address[0] not in LOCAL:
            raise OSError(f"tests must not connect to {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Vectors cached by commands stay out of the user's home, and out of other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


WORDS = [
    "robot",
    "battery",
    "night",
    "shift",
    "fee",
    "stop",
    "mud",
    "tow",
    "insurance",
    "report",
    "firmware",
    "radio",
    "harvest",
    "crate",
    "pad",
    "arm",
    "charge",
    "dock",
    "driver",
    "grower",
    "winter",
    "probe",
    "fault",
    "reset",
    "price",
    "ripe",
    "fruit",
    "tree",
    "row",
    "gate",
    "error",
    "angle",
    "the",
    "a",
    "of",
    "is",
    "for",
    "in",
    "to",
    "and",
    "how",
    "what",
    "when",
    "who",
    "does",
    "do",
    "i",
    "my",
    "it",
    "on",
    "at",
    "with",
    "机",
    "器",
    "人",
    "电",
    "池",
    "夜",
    "班",
    "费",
    "用",
]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A sentence-transformers folder with a random two-layer BERT of 32 dimensions."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny-bert")
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.,?!-"]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys((*letters, *WORDS))]
    vocabulary += [f"##{letter}" for letter in letters]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", "utf-8")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    transformer = Transformer(str(folder))
    transformer.max_seq_length = 64
    pooling = Pooling(32, pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    out = tmp_path_factory.mktemp("tiny") / "model"
    model.save(str(out), create_model_card=False)
    return out
