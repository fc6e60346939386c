"""Model folders as they arrive: cut, damaged, foreign, from another model. All refused with 7."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest

from embedtune.embed.loading import load_sentence_transformer
from embedtune.errors import IntegrityError
from embedtune.files import sha256_of, write_json


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    """A copy to be damaged."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def refused(folder: Path, said: str) -> None:
    with pytest.raises(IntegrityError, match=said) as caught:
        load_sentence_transformer(str(folder), device="cpu")
    assert caught.value.exit_code == 7
    assert str(folder) in str(caught.value)


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "sang")


def test_a_whole_folder_is_loaded(folder):
    assert load_sentence_transformer(str(folder), device="cpu").get_embedding_dimension() == 32


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda whole: whole[: len(whole) // 2], r"cut short or damaged, \d+ bytes where its own"),
        (lambda whole: b"", "empty file where weights are due"),
        (lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
         "text pointer of a large-file store"),
    ],
    ids=["cut", "empty", "pointer"],
)  # fmt: skip
def test_m01_weights_that_are_none_are_named_as_what_they_are(folder, content, said):
    path = folder / "model.safetensors"
    path.write_bytes(content(path.read_bytes()))
    refused(folder, said)


def spoil(path: Path, pattern: bytes) -> None:
    """Overwrite the middle of the weights."""
    data = bytearray(path.read_bytes())
    begin, size = len(data) // 2, 4_000
    data[begin : begin + size] = pattern * (size // len(pattern))
    path.write_bytes(bytes(data))


def test_m02_random_bytes_that_make_no_numbers_are_found_by_the_self_test(folder):
    spoil(folder / "model.safetensors", b"\xff\xff\xff\xff")
    refused(folder, "hold NaN or infinite numbers")


@pytest.mark.parametrize("inside", [False, True], ids=["model folder", "folder of a stage"])
def test_m02_random_bytes_that_make_numbers_are_found_by_the_manifest(folder, inside):
    name = f"{folder.name}/model.safetensors" if inside else "model.safetensors"
    place = folder.parent if inside else folder
    write_json(
        place / "manifest.json", {"outputs": {name: sha256_of(folder / "model.safetensors")}}
    )
    load_sentence_transformer(str(folder), device="cpu")
    spoil(folder / "model.safetensors", b"\x00\x00\x80\x3f")  # 1.0 after 1.0
    refused(folder, "changed after the training ended")


@pytest.mark.parametrize("manifest", ["[]", "{", '{"outputs": 3}', '{"files": {}}'])
def test_a_manifest_of_another_program_is_let_be(folder, manifest):
    (folder / "manifest.json").write_text(manifest)
    load_sentence_transformer(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_m03_pickled_weights_are_refused_and_never_run(folder, tmp_path, name):
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.read_text() == "sang"  # it would
    canary.unlink()
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Canary(canary)))
    refused(folder, "pickled weights can run code when loaded and are refused")
    assert not canary.exists()


def test_m04_a_folder_with_code_of_its_own_is_refused_and_the_code_never_runs(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "modeling_own.py").write_text(
        f"from pathlib import Path\nPath({str(canary)!r}).write_text('sang')\nclass Own: ...\n"
    )
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModel": "modeling_own.Own"}})
    )
    refused(folder, "wants its own Python code")
    (folder / "config.json").write_text(json.dumps(config))
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "modeling_own.Own"
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(folder, "wants the foreign code modeling_own.Own")
    assert not canary.exists()
    assert "modeling_own" not in sys.modules


def test_m05_without_its_list_of_modules_it_is_not_loaded_as_another_model(folder):
    (folder / "modules.json").unlink()
    refused(folder, "pooling, length and normalising are unknown")


def test_m05_without_its_pooling_it_is_not_loaded_as_another_model(folder):
    shutil.rmtree(folder / "1_Pooling")
    refused(folder, "missing although modules.json names it")


def vocabulary_of(folder: Path, size: int) -> None:
    """A tokenizer of another model, of so many tokens."""
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    known = list(described["model"]["vocab"])
    names = known[:size] + [f"foreign{n}" for n in range(size - len(known))]
    described["model"]["vocab"] = {name: id for id, name in enumerate(names)}
    path.write_text(json.dumps(described))


@pytest.mark.parametrize("size", [60, 400])
def test_m05_m07_a_tokenizer_of_another_model_is_refused_with_both_sizes(folder, size):
    from safetensors.numpy import load_file

    weights = load_file(folder / "model.safetensors")
    (rows,) = [len(own) for name, own in weights.items() if name.endswith("word_embeddings.weight")]
    vocabulary_of(folder, size)
    refused(folder, rf"tokenizer knows {size} tokens, the embedding table has {rows} rows")


@pytest.mark.parametrize("path", ["../../x", "/etc", "..\\x", "1_Pooling/../../x", "C:\\x"])
def test_m06_a_module_outside_of_the_folder_is_refused(folder, path):
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(modules))
    refused(folder, "leaves the folder")
