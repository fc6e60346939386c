"""read, chunk, generate, split: each leaves a folder whole or not at all, and an account."""

import json
import re

import pytest

COUNTS = {"total", "accepted", "rejected", "duplicates"}


def rows(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def work(tmp_path_factory, command, mixed_folder, tiny_model):
    """The folders of all four commands, and what each printed."""
    folder = tmp_path_factory.mktemp("work")
    model = f"model.base={tiny_model}"
    printed = {
        "read": command("read", mixed_folder / "docs", "--out", folder / "read", "--json"),
        "chunk": command(
            "chunk", folder / "read", "-o", folder / "chunk", "--json", "--set", model,
            "--set", "chunks.tokens=48", "--set", "chunks.overlap=0",
        ),
        "generate": command(
            "generate", folder / "chunk", "-o", folder / "generate", "--json",
            "--set", "llm.provider=scripted", "--set", f"llm.answers={mixed_folder}/answers.jsonl",
        ),
        "split": command(
            "split", folder / "chunk", folder / "generate", "-o", folder / "split", "--json"
        ),
    }  # fmt: skip
    return folder, printed


@pytest.mark.parametrize("name", ["read", "chunk", "generate", "split"])
def test_each_command_prints_its_account_and_leaves_its_files(work, name):
    folder, printed = work
    result = printed[name]
    assert result.code == 0, result.err
    assert set(result.json) == {"out", "counts", "rejects", "notes"}
    assert result.json["out"] == str(folder / name)
    counts = result.json["counts"]
    assert set(counts) == COUNTS
    assert counts["total"] == counts["accepted"] + counts["rejected"] + counts["duplicates"]
    assert counts["accepted"] > 0
    manifest = json.loads((folder / name / "manifest.json").read_text())
    assert set(manifest["outputs"]) <= {
        str(path.relative_to(folder / name)) for path in (folder / name).rglob("*")
    }
    assert (folder / name / "rejects.jsonl").exists()
    assert not list(folder.glob(".*.work"))  # nothing half done is left about


def test_the_chain_ends_in_a_beir_folder(work):
    folder, printed = work
    assert len(rows(folder / "read" / "documents.jsonl")) == 12
    assert len(rows(folder / "split" / "corpus.jsonl")) == len(rows(folder / "chunk/chunks.jsonl"))
    kept = printed["split"].json["counts"]["accepted"]
    judged = set()
    for name in ("train", "dev", "test"):
        lines = (folder / "split" / "qrels" / f"{name}.tsv").read_text().splitlines()
        assert lines[0] == "query-id\tcorpus-id\tscore"
        judged |= {line.split("\t")[0] for line in lines[1:]}
    assert len(judged) == kept


def test_read_says_the_counts_on_the_last_line(command, tmp_path, mixed_folder):
    docs = tmp_path / "docs"
    docs.mkdir()
    text = (mixed_folder / "docs" / "guide-02.txt").read_text("utf-8")
    (docs / "a.txt").write_text(text, "utf-8")
    (docs / "b.txt").write_text(text, "utf-8")
    (docs / "empty.md").write_text("")
    result = command("read", docs, "--out", tmp_path / "out")
    assert result.code == 4
    assert result.out.splitlines()[-1] == (
        f"{tmp_path / 'out'}: 3 in = 1 accepted + 1 rejected + 1 duplicates"
    )
    named = [line for line in result.lines if "empty.md" in line]
    assert len(named) == 1
    assert "empty" in named[0]
    rejects = rows(tmp_path / "out" / "rejects.jsonl")
    assert [row["unusable"] for row in rejects] == [True, False]
    assert all({"stage", "code", "message", "file"} <= set(row) for row in rejects)
    again = command("read", docs, "--out", tmp_path / "out", "--quiet")
    assert (again.code, again.err) == (4, "")


def test_nothing_usable_is_3_and_can_be_mended(command, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.md").write_text("  ")
    (docs / "b.xyz").write_text("?")
    result = command("read", docs, "--out", tmp_path / "out")
    assert result.code == 3
    assert result.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["docs"]
    (docs / "a.md").write_text("# Fees\n\nThe night shift fee is charged twice in winter.\n")
    assert command("read", docs, "--out", tmp_path / "out").code in (0, 4)


def test_the_out_folder_must_be_free(command, tmp_path, mixed_folder):
    docs = mixed_folder / "docs"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for out, said in ((tmp_path / "file", "is a file"), (tmp_path / "full", "holds other files"),
                      (docs / "out", "inside"), (docs, "inside"),
                      (tmp_path / "file" / "out", "cannot write here")):  # fmt: skip
        result = command("read", docs, "--out", out)
        assert (result.code, len(result.lines)) == (2, 1), result
        assert said in result.err
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.txt"]
    assert len(list(docs.iterdir())) == 12


def test_a_folder_of_another_command_is_refused_by_name(command, tmp_path, work):
    folder, _ = work
    for arguments, wanted in (
        (["chunk", tmp_path], "read"),
        (["generate", folder / "read"], "chunk"),
        (["split", folder / "chunk", folder / "chunk"], "generate"),
    ):
        result = command(*arguments, "--out", tmp_path / "out")
        assert result.code == 2
        assert f"left by `embedtune {wanted}`" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_changed_file_is_7(command, tmp_path, mixed_folder):
    command("read", mixed_folder / "docs", "--out", tmp_path / "read")
    path = tmp_path / "read" / "documents.jsonl"
    path.write_text(path.read_text("utf-8").replace("robot", "rabbit", 1), "utf-8")
    result = command("chunk", tmp_path / "read", "--out", tmp_path / "chunk")
    assert result.code == 7
    assert str(path) in result.err


def test_no_language_model_is_said_before_any_work(command, tmp_path, work):
    folder, _ = work
    result = command("generate", folder / "chunk", "--out", tmp_path / "out",
                     "--set", "llm.model=m")  # fmt: skip
    assert result.code == 2
    assert re.search("OPENAI_API_KEY", result.err)
    assert not (tmp_path / "out").exists()


def test_extractive_queries_need_no_language_model(command, tmp_path, work):
    folder, _ = work
    result = command("generate", folder / "chunk", "--out", tmp_path / "out", "--json",
                     "--set", "queries.from=extractive")  # fmt: skip
    assert result.code == 0, result.err
    assert {row["origin"] for row in rows(tmp_path / "out/queries.jsonl")} == {"extractive"}


def test_a_missing_path_is_named(command, tmp_path):
    result = command("read", tmp_path / "none", "--out", tmp_path / "out")
    assert result.code in (2, 3)
    assert str(tmp_path / "none") in result.err
    assert not (tmp_path / "out").exists()


def test_names_cannot_write_on_the_terminal(command, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a\nb\x1b[31m\u202e.md").write_text("")
    (docs / "good.md").write_text("# Fees\n\nThe night shift fee is charged twice in winter.\n")
    result = command("read", docs, "--out", tmp_path / "out")
    assert result.code == 4
    assert "\\x1b[31m\\u202e" in result.err
    assert not set("\x1b\u202e") & set(result.err)
    assert result.err.count("a\\nb") == 1
