"""``SHA256SUMS`` in model folders: written for every model that is left, checked on every load."""

import shutil
import subprocess
from pathlib import Path

import pytest

from embedtune.embed.checks import CHECKSUMS, check_checksums, write_checksums
from embedtune.embed.loading import load_sentence_transformer
from embedtune.errors import IntegrityError


@pytest.fixture
def folder(tiny_model, tmp_path) -> Path:
    made = shutil.copytree(tiny_model, tmp_path / "model")
    write_checksums(made)
    return made


def test_other_programs_read_them(folder):
    done = subprocess.run(["sha256sum", "-c", "--strict", CHECKSUMS], cwd=folder, check=False)
    assert done.returncode == 0
    listed = {line.split("  ")[1] for line in (folder / CHECKSUMS).read_text().splitlines()}
    assert {"model.safetensors", "modules.json", "tokenizer.json", "1_Pooling/config.json"} < listed


def test_files_beside_them_may_come_and_change(folder):
    (folder / "README.md").write_text("a card")
    write_checksums(folder)
    (folder / "README.md").write_text("another")
    (folder / "notes").mkdir()
    (folder / "notes" / "own.txt").write_text("mine")
    load_sentence_transformer(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["1_Pooling/config.json", "config.json", "tokenizer.json"])
def test_a_file_that_changed_is_named(folder, name):
    path = folder / name
    path.write_text(path.read_text("utf-8") + "\n", "utf-8")
    with pytest.raises(IntegrityError, match=f"{name}: damaged or changed"):
        load_sentence_transformer(str(folder), device="cpu")


def test_a_missing_file_is_named(folder):
    (folder / "sentence_bert_config.json").unlink()
    with pytest.raises(IntegrityError, match=r"sentence_bert_config.json: missing although"):
        load_sentence_transformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("0" * 64 + "  ../outside\n", "leaves the folder"),
        ("0" * 64 + "  /etc/passwd\n", "leaves the folder"),
        ("what\n", "SHA256SUMS:1: expected a SHA-256"),
    ],
)
def test_lists_that_are_none_are_refused(folder, lines, said):
    (folder / CHECKSUMS).write_text(lines)
    with pytest.raises(IntegrityError, match=said):
        check_checksums(folder)


def test_lines_of_other_writers_are_read(folder):
    lines = (folder / CHECKSUMS).read_text().replace("  ", " *./")
    (folder / CHECKSUMS).write_text(lines)
    check_checksums(folder)


def test_merged_and_distilled_models_have_them(tiny_model, small_beir, command, tmp_path):
    merged, static = tmp_path / "merged", tmp_path / "static"
    assert command("merge", tiny_model, tiny_model, "--out", merged).code == 0
    assert command("distil", tiny_model, "--data", small_beir, "--out", static).code == 0
    for out in (merged, static):
        assert "embedtune.json" in (out / CHECKSUMS).read_text("utf-8")
        load_sentence_transformer(str(out), device="cpu")


def test_trained_models_have_them(tiny_model, small_beir, command, tmp_path):
    out = tmp_path / "trained"
    result = command(
        "train", "--data", small_beir, "--base", tiny_model, "--out", out, "--json",
        "--set", "training.max_steps=2", "--set", "training.batch_size=8",
        "--set", "training.merge=off", "--set", "evaluation.probe=none",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "model.safetensors" in (out / CHECKSUMS).read_text("utf-8")
    load_sentence_transformer(str(out), device="cpu")
