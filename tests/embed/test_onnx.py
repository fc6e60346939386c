"""Folders with a graph, as they arrive: damaged ones are refused, and nothing is guessed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedtune.embed.checks import CHECKSUMS, EXPORTED
from embedtune.embed.onnx import OnnxEmbedder
from embedtune.embed.opening import open_embedder
from embedtune.errors import ConfigError, IntegrityError


@pytest.fixture
def folder(tiny_graph, tmp_path) -> Path:
    return shutil.copytree(tiny_graph[0], tmp_path / "graph")


def change(folder: Path, **fields: object) -> None:
    """Rewrite the description, as somebody would who also drops the checksums."""
    file = folder / EXPORTED
    said = json.loads(file.read_text("utf-8"))
    file.write_text(json.dumps({**said, **fields}), "utf-8")
    (folder / CHECKSUMS).unlink()


def refused(folder: Path, said: str) -> None:
    with pytest.raises(IntegrityError, match=said):
        OnnxEmbedder(str(folder)).embed(["robot"], "query")


def test_a_folder_is_opened_by_the_form_it_has(folder, tiny_model):
    embedder = open_embedder(str(folder))
    assert isinstance(embedder, OnnxEmbedder)
    assert type(open_embedder(str(tiny_model))).__name__ == "LocalEmbedder"
    assert embedder.embed(["robot", "机器", "robot"], "query").shape == (3, 32)


def test_a_damaged_graph_is_found_before_it_is_run(folder):
    graph = folder / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 255
    graph.write_bytes(bytes(data))
    refused(folder, "model.onnx: damaged or changed")
    (folder / CHECKSUMS).unlink()
    refused(folder, "model.onnx: missing, damaged or changed")


def test_a_missing_graph_is_named(folder):
    (folder / "model.onnx").unlink()
    refused(folder, "model.onnx: missing although")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dimension": 16}, r"shape \(2, 32\), expected 16"),
        ({"dimension": 0}, "dimension: "),
        ({"engine": "other"}, "engine: "),
        ({"pages": 3}, "pages: "),
        ({"inputs": ["input_ids"]}, "cannot be run"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(folder, fields, said):
    change(folder, **fields)
    refused(folder, said)


def test_a_description_that_is_none_is_refused(folder):
    (folder / EXPORTED).write_text("{", "utf-8")
    refused(folder, "cannot be read")


def test_weights_that_are_not_finite_are_refused(folder):
    import onnx
    from onnx import numpy_helper

    from embedtune.files import sha256_of

    graph = folder / "model.onnx"
    model = onnx.load(graph)
    table = max(model.graph.initializer, key=lambda own: len(own.raw_data))
    values = numpy_helper.to_array(table).copy()
    values[:] = np.nan
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    onnx.save(model, graph)
    change(folder, sha256={"model.onnx": sha256_of(graph)})
    refused(folder, "NaN, infinite or zero")


def test_what_the_graph_fixes_cannot_be_asked_otherwise(folder):
    with pytest.raises(ConfigError, match="part of the graph"):
        OnnxEmbedder(str(folder), pooling_instead="cls")
    with pytest.raises(ConfigError, match="run on the processor"):
        OnnxEmbedder(str(folder), device="cuda")
    assert OnnxEmbedder(str(folder), pooling_instead="mean", pooling="cls").dimension == 32


def test_a_graph_that_failed_its_check_says_so_when_loaded(folder, caplog):
    check = json.loads((folder / EXPORTED).read_text("utf-8"))["check"]
    change(folder, check={**check, "outcome": "not good", "reasons": ["ndcg@10 falls"]})
    OnnxEmbedder(str(folder)).embed(["robot"], "query")
    assert "failed its check: ndcg@10 falls" in caplog.text


def test_threads_get_their_own_vectors(folder):
    from concurrent.futures import ThreadPoolExecutor

    embedder = OnnxEmbedder(str(folder))
    texts = [f"robot {number} fee" for number in range(24)]
    expected = OnnxEmbedder(str(folder)).embed(texts, "query")
    with ThreadPoolExecutor(6) as pool:
        found = np.concatenate(list(pool.map(lambda own: embedder.embed([own], "query"), texts)))
    assert found == pytest.approx(expected, abs=2e-6)
