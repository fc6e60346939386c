"""embedtune merge, and the search for a recipe, as commands."""

import json
import shutil

import pytest

from embedtune.evaluation import subsample


def weights(folder):
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def moved(tmp_path_factory, tiny_model):
    """The tiny model with 1 added to every weight, and one with 3 added."""
    from safetensors.numpy import save_file

    found = []
    for number in (1, 3):
        folder = tmp_path_factory.mktemp("moved") / f"plus{number}"
        shutil.copytree(tiny_model, folder)
        own = {name: value + number if value.dtype.kind == "f" else value
               for name, value in weights(folder).items()}  # fmt: skip
        save_file(own, folder / "model.safetensors", metadata={"format": "pt"})
        found.append(folder)
    return found


def test_several_models_are_averaged_and_taken_back_to_the_base(
    moved, tiny_model, command, tmp_path
):
    out = tmp_path / "merged"
    result = command("merge", *moved, "--base", tiny_model, "--alpha", "0.25", "--out", out,
                     "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert (result.json["alpha"], result.json["curve"]) == (0.25, [])
    base, merged = weights(tiny_model), weights(out)
    assert base.keys() == merged.keys()
    for name, value in base.items():
        if value.dtype.kind == "f":
            assert merged[name] == pytest.approx(value + 0.25 * 2, abs=1e-5)  # mean of 1 and 3
    facts = json.loads((out / "embedtune.json").read_text("utf-8"))
    assert facts["merged"] == [str(path) for path in moved]


def test_without_a_base_it_is_the_mean(moved, tiny_model, command, tmp_path):
    out = tmp_path / "mean"
    assert command("merge", *moved, "--out", out).code == 0
    base, merged = weights(tiny_model), weights(out)
    name = next(name for name, value in base.items() if value.dtype.kind == "f")
    assert merged[name] == pytest.approx(base[name] + 2, abs=1e-5)


def test_alpha_is_chosen_on_dev(moved, tiny_model, small_beir, command, tmp_path):
    result = command("merge", moved[0], "--base", tiny_model, "--data", small_beir, "--out",
                     tmp_path / "m", "--json")  # fmt: skip
    assert result.code == 0, result.err
    curve = dict(result.json["curve"])
    assert set(curve) == {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}
    chosen = result.json["alpha"]
    assert chosen > 0
    assert curve[chosen] == max(score for alpha, score in curve.items() if alpha)


def test_on_a_large_corpus_alpha_is_chosen_over_a_part_of_it(
    moved, tiny_model, small_beir, command, tmp_path, monkeypatch
):
    monkeypatch.setattr(subsample, "MOST", 40)
    result = command("merge", moved[0], "--base", tiny_model, "--data", small_beir, "--out",
                     tmp_path / "m", "--json")  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["judged_on"].startswith("dev is judged over 40 of 60 passages")
    assert result.json["judged_on"] in result.err


def test_alpha_is_chosen_again_when_dev_has_changed(
    moved, tiny_model, small_beir, command, tmp_path
):
    data = tmp_path / "data"
    shutil.copytree(small_beir, data)
    arguments = ("merge", moved[0], "--base", tiny_model, "--data", data, "--out", tmp_path / "m")

    def chosen_anew() -> bool:
        result = command(*arguments)
        assert result.code == 0, result.err
        return "choosing alpha" in result.err

    assert chosen_anew()
    assert not chosen_anew()
    dev = data / "qrels" / "dev.tsv"
    dev.write_text("\n".join(dev.read_text("utf-8").splitlines()[:-1]) + "\n", "utf-8")
    assert chosen_anew()


@pytest.mark.parametrize("option", [("--alpha", "0.5"), ("--data", "any")])
def test_alpha_and_data_need_a_base(option, moved, command, tmp_path):
    result = command("merge", *moved, *option, "--out", tmp_path / "out")
    assert result.code == 2
    assert f"{option[0]} needs --base" in result.err


def test_models_that_pool_differently_are_refused(tiny_model, command, tmp_path):
    other, out = tmp_path / "other", tmp_path / "out"
    shutil.copytree(tiny_model, other)
    file = next(other.glob("*_Pooling")) / "config.json"
    config = json.loads(file.read_text("utf-8"))
    assert config["pooling_mode"] == "mean"
    file.write_text(json.dumps({**config, "pooling_mode": "cls"}), "utf-8")
    result = command("merge", tiny_model, other, "--out", out)
    assert result.code == 7
    assert "their poolings differ: mean and cls" in result.err
    assert not out.exists()


def test_models_of_other_modules_are_refused(tiny_model, command, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    file = other / "modules.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8"))[:-1]), "utf-8")
    result = command("merge", tiny_model, other, "--out", tmp_path / "out")
    assert result.code == 7
    assert "Transformer, Pooling, Normalize, BertModel" in result.err


def test_of_differing_prompts_and_lengths_the_first_are_kept(tiny_model, command, tmp_path):
    from sentence_transformers import SentenceTransformer

    other, out = tmp_path / "other", tmp_path / "out"
    model = SentenceTransformer(str(tiny_model), device="cpu", local_files_only=True)
    model.prompts = {"query": "ask: "}
    model.max_seq_length = 32
    model.save(str(other), create_model_card=False)
    result = command("merge", tiny_model, other, "--out", out)
    assert result.code == 0, result.err
    assert "prompts differ" in result.err
    assert "(64 and 32)" in result.err
    assert f"the merge keeps what {tiny_model} has" in result.err
    merged = SentenceTransformer(str(out), device="cpu", local_files_only=True)
    assert merged.max_seq_length == 64
    assert not any(merged.prompts.values())


def test_what_cannot_be_merged_is_refused(moved, tiny_model, command, tmp_path):
    out = tmp_path / "out"
    assert command("merge", moved[0], "--out", out).code == 2
    assert command("merge", moved[0], "--base", tiny_model, "--out", out).code == 2
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    file = other / "tokenizer.json"
    tokens = json.loads(file.read_text("utf-8"))
    vocabulary = tokens["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(tokens), "utf-8")
    result = command("merge", other, "--base", tiny_model, "--alpha", "0.5", "--out", out)
    assert result.code == 7
    assert "vocabularies differ" in result.err
    assert not out.exists()


def test_the_recipe_is_looked_for_and_told(small_beir, tiny_model, command, tmp_path):
    result = command(
        "train", "--data", small_beir, "--base", tiny_model, "--out", tmp_path / "model", "--json",
        "--minutes", "5", "--set", "training.epochs=1", "--set", "training.batch_size=16",
        "--set", "training.temperature=0.05", "--set", "training.matryoshka=off",
        "--set", "evaluation.probe=none",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "3 candidates on 3 folds of train and dev, 5 minutes" in result.err
    search = result.json["search"]
    rates = {trial["candidate"]["learning_rate"] for trial in search["trials"]}
    assert rates == {5e-5, 1e-4, 2e-4}
    assert [trial["rung"] for trial in search["trials"]] == [0, 0, 0, 1, 1, 2, 2]
    assert result.json["plan"]["learning_rate"] == search["candidate"]["learning_rate"]
    assert result.json["alpha"] in dict(search["curve"])
    assert not (tmp_path / "model" / "search.jsonl").exists()
