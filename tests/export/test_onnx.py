"""Graphs of a model: the same vectors, a check that can fail, folders that say what they are."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedtune.embed.checks import EXPORTED
from embedtune.embed.local import LocalEmbedder
from embedtune.embed.onnx import OnnxEmbedder, read_exported
from embedtune.embed.tokens import load_tokens
from embedtune.export.check import OnData, cosines, hard_texts, judge_export
from embedtune.export.onnx import export_onnx, exportable, quantise, save_tokenizer
from embedtune.pipeline import exporting

TEXTS = [
    "the robot battery",
    "机器人电池",
    "how does the driver reset a dock fault in winter? " * 12,
    "[SEP] [PAD] robot",
    "a",
    "",
]


@pytest.fixture(scope="module")
def graph_of_tiny(tiny_graph):
    """In the place of `export_onnx`: the graph of the tiny model, which was made already."""
    graph = tiny_graph[0] / read_exported(tiny_graph[0]).graph

    def copied(model, path: Path) -> tuple[str, ...]:
        shutil.copy(graph, path)
        return read_exported(tiny_graph[0]).inputs

    return copied


@pytest.fixture(scope="module")
def exported(tiny_model, tiny_graph, graph_of_tiny, tmp_path_factory, command):
    """(folder, result of the command) by form."""
    made = {"onnx": tiny_graph}

    def of(form: str) -> tuple[Path, object]:
        if form not in made:
            out = tmp_path_factory.mktemp("exported") / form
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(exporting, "export_onnx", graph_of_tiny)
                told = command("export", tiny_model, "--to", form, "--out", out, "--json")
            made[form] = out, told
        return made[form]

    return of


@pytest.mark.parametrize("form", ["onnx", "openvino", "onnx-int8"])
def test_a_graph_gives_the_vectors_of_its_model(exported, tiny_model, form):
    folder, result = exported(form)
    check = result.json["check"]
    assert result.code == 0, result.err
    assert check["outcome"] == ("not checked on data" if form == "onnx-int8" else "good")
    expected = {role: LocalEmbedder(str(tiny_model), device="cpu").embed(TEXTS, role)
                for role in ("query", "document")}  # fmt: skip
    embedder = OnnxEmbedder(str(folder))
    least = 0.95 if form == "onnx-int8" else 0.9999
    for role, vectors in expected.items():
        together = embedder.embed(TEXTS, role)
        alone = np.concatenate([embedder.embed([text], role) for text in TEXTS])
        for found in (together, alone):
            assert found.dtype == np.float32
            assert ((found * vectors).sum(axis=1) > least).all()
    assert embedder.embed([], "query").shape == (0, 32)


def test_a_fp32_graph_is_equal_in_all_digits_that_matter(exported, tiny_model):
    folder, _ = exported("onnx")
    own = LocalEmbedder(str(tiny_model), device="cpu").embed(TEXTS, "document")
    assert OnnxEmbedder(str(folder)).embed(TEXTS, "document") == pytest.approx(own, abs=2e-6)


def test_a_vector_of_an_int8_graph_does_not_depend_on_the_texts_beside_it(exported):
    embedder = OnnxEmbedder(str(exported("onnx-int8")[0]))
    together = embedder.embed(TEXTS, "document")
    for row, text in enumerate(TEXTS):
        assert (embedder.embed([text], "document")[0] == together[row]).all()


def test_facts_are_told_without_loading_the_graph(exported, tiny_model):
    folder, _ = exported("onnx")
    embedder, own = OnnxEmbedder(str(folder)), LocalEmbedder(str(tiny_model), device="cpu")
    assert (embedder.dimension, embedder.max_tokens, embedder.similarity) == (
        own.dimension, own.max_tokens, own.similarity,
    ) == (32, 64, "cosine")  # fmt: skip
    assert "_graph" not in vars(embedder)
    assert load_tokens(str(folder)).max_tokens == 64
    said = read_exported(folder)
    assert (said.pooling, said.normalised) == ("mean", True)
    assert said.inputs == ("input_ids", "attention_mask", "token_type_ids")


def test_a_graph_names_no_folder_of_the_machine_it_was_made_on(exported):
    import embedtune

    folder, _ = exported("onnx")
    source = str(Path(embedtune.__file__).parent).encode()
    assert not [path for path in folder.rglob("*") if source in path.read_bytes()]


def test_the_library_of_tokens_agrees_on_what_a_text_is(exported, tiny_model):
    from embedtune.embed.packed import token_ids

    folder, _ = exported("onnx")
    model = LocalEmbedder(str(tiny_model), device="cpu").model
    own = [list(ids) for ids in token_ids(model, TEXTS, "query")]
    assert OnnxEmbedder(str(folder)).token_ids(TEXTS, "query") == own


def test_other_poolings_a_dense_layer_and_prompts_are_in_the_folder(tiny_model, command, tmp_path):
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    torch.manual_seed(1)
    modes = ("cls", "max", "weightedmean", "mean_sqrt_len_tokens", "lasttoken")
    first = SentenceTransformer(str(tiny_model), device="cpu")[0]
    pooling = Pooling(32, pooling_mode=modes)  # side by side
    model = SentenceTransformer(
        modules=[first, pooling, Dense(160, 16)], device="cpu",
        prompts={"query": "how ", "document": "the "}, similarity_fn_name="dot",
    )  # fmt: skip
    model.save(str(tmp_path / "model"), create_model_card=False)
    out = tmp_path / "out"
    result = command("export", tmp_path / "model", "--to", "onnx", "--out", out, "--json")
    assert result.code == 0, result.err
    embedder = OnnxEmbedder(str(out))
    assert (embedder.dimension, embedder.similarity) == (16, "dot")
    said = read_exported(out)
    assert said.prompts == {"query": "how ", "document": "the "}
    assert (said.pooling, said.normalised) == ("+".join(modes), False)
    texts = [text for text in TEXTS if "[" not in text]  # the library reads "[SEP]" as a border
    for role, encode in (("query", model.encode_query), ("document", model.encode_document)):
        assert embedder.embed(texts, role) == pytest.approx(encode(texts), abs=1e-5)
    other = OnnxEmbedder(str(out), prompts_instead={"query": ""})
    assert other.name != embedder.name
    plain = model.encode(["robot"], prompt="")
    assert other.embed(["robot"], "query") == pytest.approx(plain, abs=1e-5)


def test_what_no_graph_is_made_of_is_refused(tiny_model):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    model = SentenceTransformer(str(tiny_model), device="cpu")
    assert exportable(model) == ""
    static = StaticEmbedding(model.tokenizer.backend_tokenizer, embedding_dim=8)
    assert "static" in exportable(SentenceTransformer(modules=[static], device="cpu"))
    model[1].include_prompt = False
    assert "prompt" in exportable(model)


# ---- the check


def test_cosines_are_worked_out_row_by_row():
    one = np.array([[3, 4], [1, 0], [0, 0], [1, 1]], np.float32)
    other = np.array([[4, 3], [0, 2], [1, 0], [np.nan, 1]], np.float32)
    assert cosines(one, other) == pytest.approx([24 / 25, 0, 0, 0])


@pytest.mark.parametrize(
    ("cosine", "precision", "loss", "outcome"),
    [
        (0.99995, "fp32", None, "good"),
        (0.9998, "fp32", None, "not good"),
        (0.9998, "bf16", 0.0, "not good"),
        (0.97, "int8", None, "not checked on data"),
        (0.97, "int8", 0.004, "good"),
        (0.97, "int8", 0.006, "not good"),
        (0.97, "int8", -0.02, "good"),
        (0.89, "int8", 0.0, "not good"),
        (0.99995, "fp32", 0.006, "not good"),
    ],
)
def test_the_outcome_is_decided_by_cosine_and_dev(cosine, precision, loss, outcome):
    one = np.array([[1, 0], [1, 0]])
    other = np.array([[1, 0], [cosine, (1 - cosine**2) ** 0.5]])
    on_data = None if loss is None else OnData("ndcg@10", 30, 0.5, 0.5 - loss)
    found = judge_export(one, other, precision, on_data)
    assert found.outcome == outcome
    assert bool(found.reasons) == (outcome == "not good")
    assert found.min_cosine == pytest.approx(cosine)
    assert found.mean_cosine == pytest.approx((1 + cosine) / 2)


def test_hard_texts_hold_a_long_one():
    assert len(hard_texts(["short", "text"] * 2000)[0]) == 4000
    assert any("[SEP]" in text for text in hard_texts([]))


def test_data_decides_and_is_told(
    tiny_model, small_beir, command, tmp_path, monkeypatch, graph_of_tiny
):
    monkeypatch.setattr(exporting, "export_onnx", graph_of_tiny)
    out = tmp_path / "out"
    arguments = ("export", tiny_model, "--to", "onnx-int8", "--out", out, "--data", small_beir,
                 "--json")  # fmt: skip
    result = command(*arguments)
    check = result.json["check"]
    assert check["queries"] == 24
    evaluated = command("evaluate", "--data", small_beir, "--split", "dev", f"own={tiny_model}",
                        f"graph={out}", "--json")  # fmt: skip
    scores = {row["name"]: row["metrics"]["ndcg@10"] for row in evaluated.json["systems"]}
    assert scores == pytest.approx({"own": check["before"], "graph": check["after"]}, abs=1e-9)
    good = check["before"] - check["after"] <= 0.005
    assert (check["outcome"] == "good") == good == (result.code == 0)
    assert command(*arguments).json == result.json  # found, not made again


def test_a_graph_of_other_weights_is_not_called_good(tiny_model, command, tmp_path, monkeypatch):
    def wrong(model, path):
        return export_onnx(_moved(model), path)

    monkeypatch.setattr(exporting, "export_onnx", wrong)
    out = tmp_path / "out"
    result = command("export", tiny_model, "--to", "onnx", "--out", out, "--json")
    assert result.code == 7
    assert result.json["check"]["outcome"] == "not good"
    assert "smallest cosine" in result.err
    assert json.loads((out / EXPORTED).read_text("utf-8"))["check"]["outcome"] == "not good"


def _moved(model):
    """A copy with one layer's weights turned round."""
    import copy

    other = copy.deepcopy(model)
    weights = other[0].model.encoder.layer[1].output.dense.weight
    weights.data = -3 * weights.data
    return other


def test_without_its_packages_the_line_to_install_is_named(
    tiny_model, command, tmp_path, monkeypatch
):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else found(name, *a)
    )
    result = command("export", tiny_model, "--to", "onnx", "--out", tmp_path / "out")
    assert result.code == 2
    assert "pip install 'embedtune[onnx]'" in result.err


def test_wrong_commands_are_refused(tiny_model, command, tmp_path):
    out = tmp_path / "out"
    result = command("export", tiny_model, "--to", "tflite", "--out", out)
    assert (result.code, "onnx, onnx-int8, openvino or static" in result.err) == (2, True)
    result = command("export", tiny_model, "--to", "static", "--out", out)
    assert (result.code, "give --data" in result.err) == (2, True)
    assert not out.exists()


def test_static_is_the_distilled_model(tiny_model, small_beir, command, tmp_path):
    result = command("export", tiny_model, "--to", "static", "--data", small_beir, "--out",
                     tmp_path / "out", "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert json.loads((tmp_path / "out" / "embedtune.json").read_text())["distilled_from"]


@pytest.mark.model
def test_the_real_model_is_exported_and_one_query_is_read(tmp_path):
    model = LocalEmbedder("sentence-transformers/all-MiniLM-L6-v2", device="cpu")
    inputs = export_onnx(model.model, tmp_path / "model.onnx")
    quantise(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    save_tokenizer(model.model, tmp_path)
    sizes = [(tmp_path / name).stat().st_size for name in ("model.onnx", "int8.onnx")]
    assert sizes[1] < sizes[0] / 3
    import onnxruntime

    for name, least in (("model.onnx", 0.999999), ("int8.onnx", 0.93)):
        session = onnxruntime.InferenceSession(str(tmp_path / name))
        for texts in (["who pays for night shifts?"], ["a", "谁支付夜班费用？", "word " * 300]):
            tokens = model.model.tokenizer(
                texts, padding=True, truncation=True, max_length=256, return_tensors="np"
            )
            found = session.run(None, {key: tokens[key].astype(np.int64) for key in inputs})[0]
            assert (cosines(found, model.embed(texts, "query")) > least).all()


@pytest.fixture
def folder(exported, tmp_path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(exported("onnx")[0], tmp_path / "copy")


def test_an_exported_model_is_no_base_to_train(folder, small_beir, command, tmp_path):
    result = command("train", "--data", small_beir, "--base", folder, "--out", tmp_path / "out")
    assert result.code == 2
    assert "an exported model, which can only encode" in result.err
