"""Embeddings from an exported model: a graph for ONNX Runtime or OpenVINO. Needs no torch."""

import functools
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from embedtune.embed import Matrix, Similarity
from embedtune.embed.checks import EXPORTED, check_checksums, hash_of, read_json_object
from embedtune.embed.loading import usable_cores
from embedtune.embed.models import resolve_model
from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import clean_text, visible
from embedtune.records import Progress, Role, no_progress
from embedtune.settings import Settings

log = logging.getLogger(__name__)

Engine = Literal["onnxruntime", "openvino"]
GraphPrecision = Literal["fp32", "int8", "bf16"]
Graph = Callable[[Mapping[str, np.ndarray]], np.ndarray]

INSTALL = {
    "onnxruntime": "pip install 'embedtune[onnx]'",
    "openvino": "pip install 'embedtune[openvino]'",
}
TOKENS = 1024  # of a pass, for each thread: what is worked on stays in the processor's cache
PORTION = 2048  # texts tokenised at once, and between two calls of `progress`
SELF_TEST = ("embedtune loads a model", "证券 12 fish")


class Checked(Settings):
    """How the graph's vectors compare with those of the model it was made from."""

    outcome: Literal["good", "not good", "not checked on data"]
    reasons: tuple[str, ...] = ()
    texts: int
    min_cosine: float
    mean_cosine: float
    metric: str = ""  # empty without data
    queries: int = 0
    before: float | None = None
    after: float | None = None


class Exported(Settings):
    """``embedtune_onnx.json``: all that a text goes through before and behind the graph."""

    source: str
    revision: str
    engine: Engine
    precision: GraphPrecision
    graph: str  # file name
    sha256: dict[str, str]  # of the graph's files
    inputs: tuple[str, ...]
    dimension: int = Field(gt=0)
    max_tokens: int = Field(gt=0)
    lengths: dict[Role, int]  # tokens read of a text of that role
    prompts: dict[Role, str]
    control_tokens_as_text: bool  # "[SEP]" written in a text is three characters and no border
    pad_token: int
    padding_side: Literal["left", "right"] = "right"
    truncation_side: Literal["left", "right"] = "right"
    pooling: str
    normalised: bool
    similarity: Similarity
    matryoshka_dims: tuple[int, ...] = ()
    check: Checked | None = None


def read_exported(folder: Path) -> Exported:
    """What a folder says of the graph in it.

    Raises:
        IntegrityError: The description is damaged, or a newer program's.
    """
    file = folder / EXPORTED
    try:
        return Exported.model_validate(read_json_object(file))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise IntegrityError(f"{file}: {place}: {first['msg']}; export the model again") from error


class OnnxEmbedder:
    """A folder that ``embedtune export`` left; loaded when first needed.

    Vectors of int8 graphs are made text by text: their numbers are scaled by what lies in one
    pass, so that else a vector would depend on the texts beside it. A bf16 graph runs in fp32
    where the processor has no bf16, which is said in ``name``.

    Args:
        model: The folder.
        prompts_instead: Put before texts of that role, in the place of the model's own.
        device, batch_size, precision, pooling, trust_remote_code: Taken so that all models are
            opened alike; the graph has its own, and it runs on the processor.

    Raises:
        ConfigError: A package is missing; or another pooling or a graphics card is asked for.
        IntegrityError: The folder is damaged.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        batch_size: int = 32,
        precision: str = "fp32",
        trust_remote_code: bool = False,
        pooling: str = "auto",
        pooling_instead: str | None = None,
        prompts_instead: Mapping[Role, str] = {},
        progress: Progress = no_progress,
    ) -> None:
        self.resolved = resolve_model(model)
        self.exported = read_exported(self.resolved.path)
        if pooling_instead and pooling_instead != self.exported.pooling:
            raise ConfigError(
                f"model {visible(model)}: its pooling ({self.exported.pooling}) is part of the "
                "graph; export the model anew with another"
            )
        if device not in ("auto", "cpu"):
            raise ConfigError(
                f"model {visible(model)}: exported models run on the processor; leave device out, "
                f"or use {visible(self.exported.source)} on {visible(device)}"
            )
        self.precision = _possible(self.exported)
        own = [f"{role}={prompt!r}" for role, prompt in sorted(prompts_instead.items())]
        fallen = [self.precision] if self.precision != self.exported.precision else []
        self.name = " ".join([self.resolved.label, *fallen, *own])
        self.dimension = self.exported.dimension
        self.max_tokens = self.exported.max_tokens
        self.similarity: Similarity = self.exported.similarity
        self._prompts = {**self.exported.prompts, **prompts_instead}
        self._budget = 1 if self.precision == "int8" else TOKENS * threads()
        self._progress = progress
        self._loading = threading.Lock()

    def embed(self, texts: Sequence[str], role: Role) -> Matrix:
        cleaned = [clean_text(text) for text in texts]
        distinct = sorted(dict.fromkeys(cleaned), key=lambda text: (-len(text), text))
        vectors = np.empty((len(distinct), self.dimension), np.float32)
        for first in range(0, len(distinct), PORTION):
            part = distinct[first : first + PORTION]
            vectors[first : first + len(part)] = self._embed_portion(part, role)
            self._progress(first + len(part), len(distinct))
        row_of = {text: row for row, text in enumerate(distinct)}
        return vectors[[row_of[text] for text in cleaned]]

    def _embed_portion(self, texts: Sequence[str], role: Role) -> Matrix:
        graph = self.graph
        ids = self.token_ids(texts, role)
        vectors = np.empty((len(texts), self.dimension), np.float32)
        order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
        while order:
            longest = max(1, len(ids[order[0]]))
            count = max(1, self._budget // longest)
            batch, order = order[:count], order[count:]
            vectors[batch] = graph(self._padded([ids[index] for index in batch], longest))
        return vectors

    def token_ids(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """As the model that was exported sees each text: prompt before, cut, special tokens in."""
        tokenizer = self._tokenizers[role]
        prompt = self._prompts.get(role, "")
        return [one.ids for one in tokenizer.encode_batch([prompt + text for text in texts])]

    def _padded(self, rows: Sequence[Sequence[int]], width: int) -> dict[str, np.ndarray]:
        ids = np.full((len(rows), width), self.exported.pad_token, np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(rows):
            begin = width - len(row) if self.exported.padding_side == "left" else 0
            ids[place, begin : begin + len(row)] = row
            mask[place, begin : begin + len(row)] = 1
        made = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: made[name] for name in self.exported.inputs}

    @functools.cached_property
    def _tokenizers(self) -> dict[Role, Any]:  # tokenizers.Tokenizer, which ships no types
        from tokenizers import Tokenizer

        file = self.resolved.path / "tokenizer.json"
        made = {}
        for role, length in self.exported.lengths.items():
            try:
                tokenizer = Tokenizer.from_file(str(file))
            except Exception as error:  # the library raises bare Exception
                raise IntegrityError(f"{file}: not a tokenizer ({visible(error)})") from error
            tokenizer.no_padding()
            tokenizer.enable_truncation(length, direction=self.exported.truncation_side)
            tokenizer.encode_special_tokens = self.exported.control_tokens_as_text
            made[role] = tokenizer
        return made

    @property
    def graph(self) -> Graph:
        """Loaded by whoever comes first, once."""
        with self._loading:
            return self._graph

    @functools.cached_property
    def _graph(self) -> Graph:
        folder, exported = self.resolved.path, self.exported
        check_checksums(folder)
        for name, digest in exported.sha256.items():
            path = folder / Path(name).name
            if not path.is_file() or hash_of(path) != digest:
                raise IntegrityError(
                    f"{path}: missing, damaged or changed (its hash is not that of {EXPORTED}); "
                    "export the model again"
                )
        if exported.check and exported.check.outcome == "not good":
            log.warning("%s: failed its check: %s", folder, "; ".join(exported.check.reasons))
        open_graph = _open_openvino if exported.engine == "openvino" else _open_onnx
        try:
            graph = open_graph(folder / Path(exported.graph).name, self.precision)
            tried = self._try(graph)
        except ImportError as error:
            raise ConfigError(
                f"{folder}: needs {exported.engine}; {INSTALL[exported.engine]}"
            ) from error
        except (ConfigError, IntegrityError):
            raise
        except Exception as error:  # both engines raise many kinds, some of them bare
            raise IntegrityError(
                f"{folder / exported.graph}: cannot be run ({visible(error, 200)}); export the "
                "model again"
            ) from error
        if tried.shape != (len(SELF_TEST), self.dimension):
            raise IntegrityError(
                f"{folder / exported.graph}: gives vectors of the shape {tried.shape}, expected "
                f"{self.dimension} dimensions; export the model again"
            )
        if not np.isfinite(tried).all() or not np.abs(tried).sum(axis=1).all():
            raise IntegrityError(
                f"{folder}: gives vectors that are NaN, infinite or zero; export the model again"
            )
        if np.allclose(tried[0], tried[1], atol=1e-6):
            raise IntegrityError(
                f"{folder}: gives one vector for different texts; export the model again"
            )
        return graph

    def _try(self, graph: Graph) -> np.ndarray:
        """Vectors of the self-test, one pass each."""
        rows = self.token_ids(SELF_TEST, "document")
        return np.concatenate([graph(self._padded([row], max(1, len(row)))) for row in rows])


def threads() -> int:
    """As many as the environment asks for, else as there are cores to use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdecimal() and int(asked) else usable_cores()


def has_bf16() -> bool:
    """Whether OpenVINO computes in bf16 on this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _possible(exported: Exported) -> GraphPrecision:
    """The graph's precision, or what this processor has in its place."""
    if exported.engine != "openvino" or exported.precision != "bf16":
        return exported.precision
    try:
        return "bf16" if has_bf16() else "fp32"
    except ImportError as error:
        raise ConfigError(f"the model needs openvino; {INSTALL['openvino']}") from error


def _open_onnx(path: Path, precision: GraphPrecision) -> Graph:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    # spinning threads collapse when another process holds a core
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))[0]


def _open_openvino(path: Path, precision: GraphPrecision) -> Graph:
    import openvino

    compiled = openvino.Core().compile_model(
        str(path),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": threads(),
            "PERFORMANCE_HINT": "LATENCY",
        },
    )
    own = threading.local()  # a request serves one thread at a time

    def run(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        return np.array(own.request.infer(dict(inputs))[0])

    return run
