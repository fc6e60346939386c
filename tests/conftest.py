"""Fixtures for all tests. No test reaches beyond this machine."""

import gc
import io
import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # other tests run beside them
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
CHROMIUM = Path("/usr/bin/chromium")
FONT = Path("/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf")
NEEDED = {"shared": SHARED, "browser": CHROMIUM, "chinese_font": FONT}  # by marker
LOCAL = ("127.0.0.1", "::1", "localhost")


def pytest_collection_modifyitems(items):
    """Tests that need what is not here are skipped on a laptop and fail in CI."""
    for item in items:
        for marker, needed in NEEDED.items():
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
def _no_provider_variables(monkeypatch):
    """What this machine's owner has set up for language models changes no test."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "LLM_MODEL",
                 "EMBEDDING_MODEL", "GEMINI_API_KEY", "COHERE_API_KEY", "CO_API_KEY",
                 "CO_API_URL"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


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
    gc.freeze()  # the libraries are loaded now: no look for garbage goes through them any more
    return out


@pytest.fixture(scope="session")
def tiny_cross_encoder(tiny_model, tmp_path_factory) -> Path:
    """A cross-encoder's folder: the tiny model's tokens, one layer of random weights, scores that
    differ."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    plain = tmp_path_factory.mktemp("plain-cross")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.save_pretrained(plain)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=64, num_labels=1, initializer_range=1.0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(plain)
    out = tmp_path_factory.mktemp("cross") / "model"
    CrossEncoder(str(plain), device="cpu").save_pretrained(str(out))
    return out


# ---- a small mixed corpus that the tiny model can read

ENGLISH = [word for word in WORDS if word.isascii()]
CHINESE = [word for word in WORDS if not word.isascii()]


def _sentences(number: int, count: int, chinese: bool) -> list[str]:
    draw = random.Random(number)
    if chinese:
        return ["".join(draw.choice(CHINESE) for _ in range(16)) + "。" for _ in range(count)]
    return [
        " ".join(draw.choice(ENGLISH) for _ in range(11)).capitalize() + "." for _ in range(count)
    ]


def write_mixed_folder(folder: Path, documents: int = 12) -> list[dict[str, str]]:
    """Markdown, HTML and text, a quarter of it Chinese; gives recorded answers about it."""
    folder.mkdir(parents=True)
    answers = []
    for number in range(documents):
        chinese, kind = number % 4 == 3, ("md", "html", "txt")[number % 3]
        name = f"guide-{number:02d}.{kind}"
        parts = []
        for section in range(4):
            heading = f"第{section}节机器{number}" if chinese else f"Part {section} of {number}"
            sentences = _sentences(1000 * number + 10 * section, 4, chinese)
            for place, sentence in enumerate(sentences[:3]):
                words = sentence[:-1] if chinese else sentence[:-1].lower().split()
                asked = f"{words[2:8]}{place}" if chinese else " ".join(reversed(words[2:8]))
                answers.append(
                    {"document": name, "quote": sentence, "question": asked, "style": "keywords"}
                )
            parts.append((heading, " ".join(sentences)))
        if kind == "md":
            text = "\n\n".join(f"## {heading}\n\n{body}" for heading, body in parts)
        elif kind == "html":
            inner = "".join(f"<h2>{heading}</h2><p>{body}</p>" for heading, body in parts)
            text = f"<html><body>{inner}</body></html>"
        else:
            text = "\n\n".join(f"{heading}\n\n{body}" for heading, body in parts)
        (folder / name).write_text(text, "utf-8")
    return answers


@pytest.fixture(scope="session")
def mixed_folder(tmp_path_factory) -> Path:
    """A dozen documents in ``docs/`` and recorded answers in ``answers.jsonl``. Do not change."""
    folder = tmp_path_factory.mktemp("mixed")
    answers = write_mixed_folder(folder / "docs")
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)) + "\n", "utf-8")
    return folder


def write_beir(
    folder: Path, *, chinese: bool = False, leak: bool = False, copy: bool = False
) -> Path:
    """60 passages, two queries each, split 30 / 12 / 18. ``leak``: two test passages repeat train
    passages but for a word; ``copy``: a query with its passage stands in train and in test."""
    (folder / "qrels").mkdir(parents=True)
    passages, queries, qrels = {}, {}, {"train": [], "dev": [], "test": []}
    for number in range(60):
        draw = random.Random(number)
        words = [draw.choice(ENGLISH) for _ in range(24)]
        if chinese:
            words = [draw.choice([*CHINESE, *map(chr, range(0x5000, 0x5020))]) for _ in range(40)]
        if leak and number in (42, 43):
            words = [*passages[f"p{number - 42}"].split()[:-1], "insurance"]
        blank = "" if chinese else " "
        passages[f"p{number}"] = blank.join(words)
        split = "train" if number < 30 else "dev" if number < 42 else "test"
        for place in range(2):
            query = f"q{number}-{place}"
            queries[query] = blank.join(reversed(words[3 + 8 * place : 9 + 8 * place]))
            if leak and number in (42, 43):
                queries[query] = f"how {queries[query]}"
            qrels[split].append(f"{query}\tp{number}\t1")
    if copy:
        qrels["test"].append(qrels["train"][0])
    for name, rows in (("corpus", passages), ("queries", queries)):
        lines = [json.dumps({"_id": i, "text": text}) for i, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    for split, lines in qrels.items():
        text = "\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n"
        (folder / "qrels" / f"{split}.tsv").write_text(text, "utf-8")
    return folder


@pytest.fixture(scope="session")
def small_beir(tmp_path_factory) -> Path:
    """A BEIR folder that leaks nowhere. Do not change."""
    return write_beir(tmp_path_factory.mktemp("beir") / "data")


@pytest.fixture(scope="session")
def make_beir() -> Callable[..., Path]:
    return write_beir


# ---- commands, in this process and in another


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        """The one JSON object that is all of standard output."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


PROVIDER = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "LLM_MODEL", "GEMINI_API_KEY")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What a command sets for its process is put back."""
    import logging
    import warnings

    ours = logging.getLogger("embedtune")
    before = ours.handlers, ours.level, ours.propagate
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with warnings.catch_warnings(), mock.patch.dict(os.environ):
            yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        ours.handlers, ours.level, ours.propagate = before


@pytest.fixture(scope="session")
def command(tmp_path_factory) -> Callable[..., Result]:
    """Runs ``embedtune …`` in this process: no second import of torch."""
    cache = tmp_path_factory.mktemp("cache-of-commands")

    def run(*arguments: object, env: dict[str, str] | None = None) -> Result:
        from embedtune.cli import run_command_line

        out, err = io.StringIO(), io.StringIO()
        with _undisturbed(), redirect_stdout(out), redirect_stderr(err):
            for name in PROVIDER:
                os.environ.pop(name, None)
            os.environ.update({"XDG_CACHE_HOME": str(cache), **(env or {})})
            code = run_command_line([str(argument) for argument in arguments])
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def tiny_graph(tiny_model, tmp_path_factory, command) -> tuple[Path, Result]:
    """The folder of ``tiny_model`` exported to ONNX, which takes seconds, and how the command
    ended. Do not change."""
    out = tmp_path_factory.mktemp("exported") / "graph"
    result = command("export", tiny_model, "--to", "onnx", "--out", out, "--json")
    assert result.code == 0, result.err
    return out, result


@pytest.fixture(scope="session")
def child(tmp_path_factory) -> Callable[..., subprocess.Popen]:
    """Starts ``embedtune …`` as a process of its own, on one thread."""
    cache = tmp_path_factory.mktemp("cache-of-children")

    def start(*arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen:
        own = {k: v for k, v in os.environ.items() if k not in PROVIDER}
        return subprocess.Popen(
            [sys.executable, "-m", "embedtune", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
            env={**own, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache), **(env or {})},
        )  # fmt: skip

    return start
