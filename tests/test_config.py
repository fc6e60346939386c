"""Group C of the bad inputs: each configuration fault names file, line and field."""

import os
from pathlib import Path

import pytest
import yaml

from embedtune.config import dump_config, example_config, load_config, load_environment
from embedtune.errors import ConfigError
from embedtune.run import check_run_id


def write(folder: Path, text: str) -> Path:
    path = folder / "embedtune.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def faults_of(folder: Path, text: str, overrides: tuple[str, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text), overrides)
    return caught.value.faults


def test_tab_as_indentation_is_named_with_line_and_column(tmp_path):
    (fault,) = faults_of(tmp_path, "chunks:\n  tokens: 128\n\n\n\nsplit:\n\tseed: 1\n")
    assert ":7: column 1: tabs are not allowed" in fault


def test_unknown_key_names_line_and_nearest_key(tmp_path):
    (fault,) = faults_of(tmp_path, "training:\n  leraning_rate: 1e-4\n")
    assert fault.startswith(str(tmp_path / "embedtune.yaml") + ":2: training.leraning_rate")
    assert "did you mean learning_rate" in fault


def test_repeated_key_names_both_lines(tmp_path):
    (fault,) = faults_of(tmp_path, "chunks:\n  tokens: 128\n  overlap: 8\n  tokens: 64\n")
    assert "lines 2 and 4" in fault


def test_all_faults_of_a_file_are_reported_together(tmp_path):
    faults = faults_of(
        tmp_path,
        "training:\n  epochs: 'three'\n  batch_size: -4\n"
        "split: {train: 0.8, dev: 0.3, test: 0.1}\n",
    )
    text = "\n".join(faults)
    assert len(faults) == 3
    assert "training.epochs" in text
    assert "three" in text
    assert "training.batch_size" in text
    assert "-4" in text
    assert "1.2" in text  # the sum of the shares


def test_object_tag_is_refused_and_never_run(tmp_path):
    canary = tmp_path / "canary"
    (fault,) = faults_of(
        tmp_path, f"run: !!python/object/apply:os.system ['touch {canary}']\nchunks: {{}}\n"
    )
    assert "refused" in fault
    assert not canary.exists()


def test_alias_bomb_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    (fault,) = faults_of(tmp_path, "\n".join(lines) + "\n")
    assert "aliases" in fault


@pytest.mark.parametrize("text", ["no", "1.10", "12:30", "0x1F", "2024-01-02", "~x"])
def test_text_values_are_kept_as_typed(tmp_path, text):
    settings = load_config(write(tmp_path, f"model: {{base: {text}}}\n"))
    assert settings.model.base == (text,)
    saved = yaml.safe_load(dump_config(settings))
    assert saved["model"]["base"] == [text]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("- a\n- b\n", "mapping"),
        ("just text\n", "mapping"),
    ],
)
def test_empty_or_wrong_top_level(tmp_path, text, said):
    (fault,) = faults_of(tmp_path, text)
    assert said in fault
    assert "embedtune.yaml" in fault


@pytest.mark.parametrize(
    "line",
    ["  api_key: abc123secret", "  model: sk-abcdefghijklmnop1234567890", "  password: geheim99"],
)
def test_key_in_the_configuration_is_refused_and_not_printed(tmp_path, line):
    faults = faults_of(tmp_path, f"llm:\n{line}\n")
    secret = line.split(": ")[1]
    assert "environment variable" in faults[0]
    assert not any(secret in fault for fault in faults)


def test_key_in_an_override_is_refused_and_not_printed():
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["llm.api_key=topsecretvalue"])
    assert "topsecretvalue" not in "".join(caught.value.faults)


@pytest.mark.parametrize(
    "run_id", ["../../other", "a/b", "CON", "", "x" * 300, "-lead", ".hidden", "com1.txt", "a b"]
)
def test_run_ids_that_are_no_folder_name_everywhere(run_id):
    with pytest.raises(ConfigError):
        check_run_id(run_id)


@pytest.mark.parametrize("run_id", ["a", "run-1", "v1.2_b", "x" * 64])
def test_good_run_ids(run_id):
    assert check_run_id(run_id) == run_id


def test_overlap_not_below_size_shows_both(tmp_path):
    (fault,) = faults_of(tmp_path, "chunks: {tokens: 64, overlap: 64}\n")
    assert "64" in fault
    faults = faults_of(tmp_path, "chunks: {tokens: 0}\n")
    assert "chunks.tokens" in faults[0]


@pytest.mark.parametrize("dims", ["[64, 64]", "[0]", "[64, 128]"])
def test_matryoshka_dimensions_that_make_no_sense(tmp_path, dims):
    faults = faults_of(tmp_path, f"training: {{matryoshka: {dims}}}\n")
    assert "training.matryoshka" in faults[0]


def test_unknown_metric_is_found_before_training(tmp_path):
    (fault,) = faults_of(tmp_path, "evaluation: {metric: best_score}\n")
    assert "evaluation.metric" in fault
    assert "ndcg@" in fault


def test_overrides_win_and_are_checked_too(tmp_path):
    path = write(tmp_path, "training: {epochs: 3}\n")
    assert load_config(path, ["training.epochs=2"]).training.epochs == 2
    with pytest.raises(ConfigError, match="did you mean"):
        load_config(path, ["training.epoch=2"])
    with pytest.raises(ConfigError, match="key=value"):
        load_config(path, ["training.epochs"])


def test_paths_of_a_file_are_taken_from_its_folder(tmp_path):
    settings = load_config(write(tmp_path, "documents: {paths: [docs]}\nrun: out/first\n"))
    assert settings.documents.paths == (tmp_path / "docs",)
    assert settings.run == tmp_path / "out/first"


def test_names_that_are_paths_are_taken_from_the_folder_of_the_file(tmp_path):
    text = "model: {base: [./models/a, b/c]}\nevaluation: {rivals: [bm25, ../d]}\nrun: ''\n"
    with pytest.raises(ConfigError, match="run"):  # an empty path is not the folder itself
        load_config(write(tmp_path, text))
    settings = load_config(write(tmp_path, text), ["run=out"])
    assert settings.model.base == (str(tmp_path / "models/a"), "b/c")
    assert settings.evaluation.rivals == ("bm25", str(tmp_path / "../d"))


def test_example_configuration_has_every_setting_and_loads(tmp_path):
    text = example_config()
    settings = load_config(write(tmp_path, text))
    assert settings.model_copy(update={"documents": None}) == load_config(None).model_copy(
        update={"documents": None}
    )
    for name in ("learning_rate", "overlap", "min_gain", "concurrency", "allow_unknown_tokens"):
        assert f"\n  {name}:" in text


def test_saved_configuration_loads_to_the_same_settings(tmp_path):
    settings = load_config(None, ["training.epochs=2", "chunks.tokens=128", "split.seed=7"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(settings), encoding="utf-8")
    again = load_config(path)
    assert again.training == settings.training
    assert again.chunks == settings.chunks
    assert again.split == settings.split


def test_env_file_fills_gaps_only(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDTUNE_TEST_A", "kept")
    monkeypatch.delenv("EMBEDTUNE_TEST_B", raising=False)
    (tmp_path / ".env").write_text(
        "# comment\nEMBEDTUNE_TEST_A=other\nexport EMBEDTUNE_TEST_B='with blank' \n", "utf-8"
    )
    load_environment(tmp_path)
    assert os.environ["EMBEDTUNE_TEST_A"] == "kept"
    assert os.environ.pop("EMBEDTUNE_TEST_B") == "with blank"
