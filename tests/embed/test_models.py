"""Where models are looked for, and what is refused before it is loaded."""

import json
import shutil
import struct
import time
from pathlib import Path

import pytest

from embedtune.embed import models
from embedtune.embed.checks import check_model_folder, safetensors_header
from embedtune.embed.loading import load_sentence_transformer, usable_cores
from embedtune.embed.models import resolve_model
from embedtune.errors import ConfigError, IntegrityError, NothingUsable, ServiceError
from embedtune.pipeline.stored import TRAINING

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


@pytest.fixture(autouse=True)
def closed_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and empty caches."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.HfApi.model_info",
        lambda *_, **__: (_ for _ in ()).throw(ConnectionError("closed")),
    )
    for variable in models.OFFLINE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "modelscope"))
    models._ask_hub.cache_clear()


def tensors_file(path: Path, tensors: dict[str, list[int]]) -> None:
    """A safetensors file of zeros."""
    header, end = {}, 0
    for name, shape in tensors.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole little model folder (never loaded)."""
    path = tmp_path / "model"
    (path / "1_Pooling").mkdir(parents=True)
    (path / "1_Pooling" / "config.json").write_text("{}")
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "config.json").write_text("{}")
    vocabulary = {f"t{i}": i for i in range(20)}
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    tensors_file(path / "model.safetensors", {"embeddings.word_embeddings.weight": [20, 4]})
    return path


# ---- where


@pytest.mark.parametrize("name", [MINILM, "all-MiniLM-L6-v2"])
def test_minilm_comes_from_its_package_when_the_network_is_closed(name: str):
    start = time.monotonic()
    found = resolve_model(name)
    assert time.monotonic() - start < 5
    assert (found.name, found.source) == (MINILM, "package")
    assert found.revision == models.PACKAGES[MINILM].sha256
    assert found.label == f"{MINILM}@53aa51172d142c89"


def test_a_hub_that_never_answers_costs_two_seconds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "HUB_SECONDS", 0.1)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: time.sleep(30))
    start = time.monotonic()
    with pytest.raises(ServiceError, match=r"no answer from .* within 0\.1 s"):
        resolve_model("org/model")
    assert time.monotonic() - start < 5


def test_an_unreachable_hub_is_told_with_every_place_that_was_searched():
    with pytest.raises(ServiceError) as caught:
        resolve_model("org/some-model")
    message = str(caught.value)
    for place in ("a local folder", "Hugging Face cache", "ModelScope cache", "cannot be reached"):
        assert place in message
    assert caught.value.exit_code == 5


def test_offline_variables_are_respected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = []
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: asked.append(a))
    with pytest.raises(ServiceError, match="not asked: HF_HUB_OFFLINE is set"):
        resolve_model("org/some-model")
    assert asked == []


def test_a_name_the_hub_does_not_know_is_a_usage_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "_ask_hub", lambda name: models.NO_SUCH_MODEL)
    with pytest.raises(ConfigError, match="Check the name"):
        resolve_model("org/misspelt")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "a/b/c", "~/nowhere-at-all"])
def test_a_path_that_does_not_exist_is_a_usage_error(name: str):
    with pytest.raises(ConfigError, match="there is no such folder"):
        resolve_model(name)


def test_a_file_and_an_empty_name_are_usage_errors(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is a file"):
        resolve_model(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="expected a name or a folder"):
        resolve_model("")
    with pytest.raises(ConfigError, match="neither a folder nor a model name"):
        resolve_model("what is/this?")


def test_a_folder_has_a_revision_of_its_content(folder: Path):
    first = resolve_model(str(folder))
    assert (first.source, first.path) == ("path", folder)
    (folder / "README.md").write_text("a card changes nothing")
    assert resolve_model(str(folder)).revision == first.revision
    moved = folder.parent / "elsewhere" / folder.name
    shutil.copytree(folder, moved)
    assert resolve_model(str(moved)).label == first.label
    (folder / "config.json").write_text('{"changed": true}')
    assert resolve_model(str(folder)).revision != first.revision


def test_the_modelscope_cache_is_searched(folder: Path, tmp_path: Path):
    place = tmp_path / "modelscope" / "models" / "BAAI" / "bge-small-zh-v1___5"
    place.parent.mkdir(parents=True)
    shutil.copytree(folder, place)
    found = resolve_model("BAAI/bge-small-zh-v1.5")
    assert (found.source, found.path) == ("modelscope cache", place)


def test_the_hub_cache_is_searched_and_needs_weights(folder: Path, tmp_path: Path):
    repo = tmp_path / "hub" / "models--org--m"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("a" * 40)
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "tokenizer.json").write_text("{}")
    with pytest.raises(ServiceError, match="incomplete there"):
        resolve_model("org/m")
    shutil.rmtree(snapshot)
    shutil.copytree(folder, snapshot)
    found = resolve_model("org/m")
    assert (found.source, found.revision) == ("hub cache", "a" * 40)


def test_packaged_weights_are_checked_against_the_published_hash(monkeypatch):
    wrong = models.PACKAGES[MINILM]._replace(sha256="0" * 64)
    monkeypatch.setattr(models, "PACKAGES", {MINILM: wrong})
    with pytest.raises(IntegrityError, match="not the published weights"):
        resolve_model(MINILM)


# ---- what


def test_a_whole_folder_passes(folder: Path):
    check_model_folder(folder)


def damage(name: str, content: bytes | str | None):
    def apply(folder: Path) -> None:
        path = folder / name
        if content is None:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif isinstance(content, str):
            path.write_text(content)
        else:
            path.write_bytes(content)

    return apply


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def module(path: str, kind: str) -> str:
    return json.dumps([{"path": path, "type": kind}])


TRANSFORMER = "sentence_transformers.models.Transformer"


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (cut_weights, "cut short or damaged, .* bytes where its own header says"),
        (damage("model.safetensors", b""), "empty file"),
        (damage("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid"),
         "text pointer of a large-file store"),
        (damage("model.safetensors", b"\xff" * 64), "not a safetensors file, or cut short"),
        (damage("model.safetensors", struct.pack("<Q", 4) + b"nope"), "damaged header"),
        (pickle_only, "pickled weights can run code"),
        (damage("modules.json", None), "no modules.json"),
        (damage("modules.json", "{"), "damaged"),
        (damage("1_Pooling", None), "1_Pooling: missing although modules.json names it"),
        (damage("modules.json", module("../../x", TRANSFORMER)), "leaves the folder"),
        (damage("modules.json", module("/etc", TRANSFORMER)), "leaves the folder"),
        (damage("modules.json", module("..\\x", TRANSFORMER)), "leaves the folder"),
        (damage("modules.json", module("", "evil.Module")), "foreign code evil.Module"),
        (damage("config.json", '{"auto_map": {"AutoModel": "x.Y"}}'), "its own Python code"),
        (damage("config.json", "[]"), "expected an object, found list"),
        (damage("tokenizer.json", '{"model": {"vocab": {"a": 0, "b": 29}}}'),
         "tokenizer knows 30 tokens, the embedding table has 20"),
        (damage("tokenizer.json", '{"model": {"vocab": {"a": 0, "b": 4}}}'),
         "tokenizer knows 5 tokens, the embedding table has 20"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_folder_is_refused(folder: Path, damaged, message: str):
    damaged(folder)
    with pytest.raises(IntegrityError, match=message):
        check_model_folder(folder)


def test_foreign_code_needs_a_switch(folder: Path):
    (folder / "config.json").write_text('{"auto_map": {}}')
    check_model_folder(folder, trust_remote_code=True)


def test_a_header_lists_the_tensors(folder: Path):
    header = safetensors_header(folder / "model.safetensors")
    assert header["embeddings.word_embeddings.weight"]["shape"] == [20, 4]


def test_a_folder_that_cannot_be_loaded_is_named(folder: Path):
    (folder / "config.json").write_text('{"model_type": "no-such-type"}')
    with pytest.raises(IntegrityError, match="cannot be loaded as a model"):
        load_sentence_transformer(str(folder))


@pytest.mark.model
def test_random_bytes_inside_the_weights_are_found(tmp_path: Path):
    source = resolve_model(MINILM).path
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    size = (copy / "model.safetensors").stat().st_size
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * 400_000)
    with pytest.raises(IntegrityError, match="NaN or infinite numbers"):
        load_sentence_transformer(str(copy))


def test_a_machine_has_at_least_one_core():
    assert usable_cores() >= 1


def test_a_run_directory_is_its_final_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / TRAINING).mkdir(parents=True)
    (run / "run.lock").touch()
    with pytest.raises(NothingUsable, match="has trained no model"):
        resolve_model(str(run))
    model = shutil.copytree(folder, run / TRAINING / "model")
    found = resolve_model(str(run))
    assert found.path == model
    assert found.label == resolve_model(str(model)).label
    assert models.located(str(run)) == models.located(str(model)) == str(model)
    assert models.located("owner/name") == "owner/name"
