"""train, evaluate, compare, search: the JSON that others rely on, and faults before any work."""

import json
import shutil

import pytest

METRICS = {"ndcg@10", "hit@1", "hit@5", "recall@10", "mrr@10", "map@100"}
QUICK = ("--set", "training.max_steps=30", "--set", "training.batch_size=16",
         "--set", "training.learning_rate=1e-3", "--set", "evaluation.probe=none")  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command, small_beir, tiny_model):
    out = tmp_path_factory.mktemp("trained") / "model"
    result = command("train", "--data", small_beir, "--base", tiny_model, "--out", out, "--json",
                     "--set", "training.matryoshka=[32,16]", *QUICK)  # fmt: skip
    return out, result


def check_systems(systems):
    for system in systems:
        assert {"name", "metrics", "dims"} <= set(system)
        assert set(system["metrics"]) == METRICS
        assert all(0 <= value <= 1 for value in system["metrics"].values())
        for metrics in system["dims"].values():
            assert set(metrics) == METRICS
    return {system["name"]: system for system in systems}


def test_train_leaves_a_model_that_is_better_on_dev(trained, tiny_model):
    out, result = trained
    assert result.code == 0, result.err
    facts = result.json
    assert facts["model"] == str(out)
    assert facts["base"] == str(tiny_model)
    assert facts["metric"] == "ndcg@10"
    assert facts["dev"] >= facts["base_score"]
    assert facts["left_out"] == 0
    assert (out / "modules.json").exists()
    assert json.loads((out / "embedtune.json").read_text())["matryoshka_dims"] == [32, 16]
    assert not list(out.parent.glob(".*.work"))


def test_training_again_does_nothing(trained, command, small_beir, tiny_model):
    out, first = trained
    before = (out / "manifest.json").stat().st_mtime_ns
    again = command("train", "--data", small_beir, "--base", tiny_model, "--out", out, "--json",
                    "--set", "training.matryoshka=[32,16]", *QUICK)  # fmt: skip
    assert again.json == first.json
    assert (out / "manifest.json").stat().st_mtime_ns == before


def test_evaluate_measures_all_kinds_of_systems(trained, command, small_beir, tiny_model):
    out, _ = trained
    result = command("evaluate", "--data", small_beir, "--split", "test", "--json", "bm25",
                     tiny_model, f"tuned={out}", f"mixed=hybrid:{out}", "hashing")  # fmt: skip
    assert result.code == 0, result.err
    assert set(result.json) == {"data", "split", "format", "queries", "rows", "systems"}
    assert (result.json["format"], result.json["rows"]) == ("beir", 0)
    assert (result.json["data"], result.json["split"]) == (str(small_beir), "test")
    assert result.json["queries"] == 36
    systems = check_systems(result.json["systems"])
    assert list(systems) == ["bm25", str(tiny_model), "tuned", "mixed", "hashing"]
    assert set(systems["tuned"]["dims"]) == {"32", "16"}  # those it was trained for
    assert systems["tuned"]["dims"]["32"] == systems["tuned"]["metrics"]
    assert systems["bm25"]["dims"] == {}
    assert systems["tuned"]["metrics"]["ndcg@10"] > systems[str(tiny_model)]["metrics"]["ndcg@10"]
    table = command("evaluate", "--data", small_beir, "bm25", f"tuned={out}")
    assert [line.split()[0] for line in table.out.splitlines()] == ["system", "bm25", "tuned"]


def test_evaluate_dev_gives_the_score_that_train_told(trained, command, small_beir):
    out, result = trained
    measured = command("evaluate", "--data", small_beir, "--split", "dev", "--json", out)
    score = measured.json["systems"][0]["metrics"]["ndcg@10"]
    assert score == pytest.approx(result.json["dev"], abs=1e-6)


@pytest.fixture(scope="module")
def compared(trained, command, small_beir, tiny_model):
    return command("compare", "--data", small_beir, "--split", "test", "--base", tiny_model,
                   "--tuned", trained[0], "--json", "--set", "evaluation.probe=none",
                   "--require", "ship")  # fmt: skip


def test_compare_adds_verdict_reasons_and_differences(compared, small_beir):
    found = compared.json
    assert {"data", "split", "queries", "systems", "verdict", "reasons", "difference"} <= set(found)
    assert (found["data"], found["split"], found["queries"]) == (str(small_beir), "test", 36)
    systems = check_systems(found["systems"])
    assert {"base", "tuned", "bm25"} <= set(systems)
    assert found["verdict"] in ("ship", "ship-hybrid", "do-not-ship", "inconclusive")
    assert found["reasons"]
    for name, rival in (("base", "base"), ("best_rival", found["best_rival"])):
        difference = found["difference"][name]
        assert {"mean", "low", "high", "p"} <= set(difference)
        gain = (
            systems[found["candidate"]]["metrics"]["ndcg@10"] - systems[rival]["metrics"]["ndcg@10"]
        )
        assert difference["mean"] == pytest.approx(gain)
    assert found["clean"] == []
    assert json.dumps(found, allow_nan=False)


def test_a_verdict_that_is_not_good_enough_is_9(compared):
    assert compared.code == 9  # under 50 test queries nothing ships
    assert compared.lines[-1].startswith("embedtune: the verdict is ")


def test_an_unknown_required_verdict_is_found_first(command, tmp_path):
    result = command("compare", "--data", tmp_path, "--base", "x", "--tuned", "y",
                     "--require", "ship,great")  # fmt: skip
    assert (result.code, len(result.lines)) == (2, 1)
    assert "great" in result.err


def share(data, count):
    """The first ``count`` train passages answer a question of test too."""
    lines = [f"q50-0\tp{number}\t1\n" for number in range(count)]
    with (data / "qrels" / "test.tsv").open("a") as file:
        file.writelines(lines)


def test_a_passage_that_test_shares_costs_its_pairs_and_not_their_queries(
    command, make_beir, tmp_path, tiny_model
):
    data = make_beir(tmp_path / "sharing")
    with (data / "qrels" / "train.tsv").open("a") as file:
        file.write("q9-0\tp0\t1\n")
    share(data, 1)
    arguments = ("train", "--data", data, "--base", tiny_model, "--out", tmp_path / "model",
                 "--json", *QUICK)  # fmt: skip
    result = command(*arguments)
    assert result.code == 0, result.err
    assert "2 of 60 train queries and 1 further pairs are left out of training" in result.err
    assert (result.json["left_out"], result.json["left_out_pairs"]) == (2, 1)
    assert json.loads((tmp_path / "model" / "embedtune.json").read_text())["pairs"] == 58


@pytest.mark.parametrize("negatives", ["none", "hard"])
def test_where_leaks_leave_no_pair_the_reason_is_told(
    command, make_beir, tmp_path, tiny_model, negatives
):
    data = make_beir(tmp_path / "sharing")
    share(data, 30)
    result = command("train", "--data", data, "--base", tiny_model, "--out", tmp_path / "model",
                     "--set", f"negatives.method={negatives}", *QUICK)  # fmt: skip
    assert result.code == 3
    assert "no train pair is left: each of the 60 shares its passage" in result.lines[-1]


def test_leaks_of_given_splits_are_counted_and_shown_twice(
    command, make_beir, tmp_path, tiny_model, trained
):
    data = make_beir(tmp_path / "leaky", leak=True)
    model = tmp_path / "model"
    result = command("train", "--data", data, "--base", tiny_model, "--out", model, "--json",
                     *QUICK)  # fmt: skip
    assert result.code == 0, result.err
    assert result.json["left_out"] == 4
    assert "4 of 60 train queries are left out of training" in result.err
    arguments = ("compare", "--data", data, "--base", tiny_model, "--json",
                 "--set", "evaluation.probe=none")  # fmt: skip
    found = command(*arguments, "--tuned", model).json
    assert "4 of 36 test queries are flagged" in found["notes"][0]
    clean, full = check_systems(found["clean"]), check_systems(found["systems"])
    assert set(clean) == set(full)
    assert clean["base"]["metrics"] != full["base"]["metrics"]
    leakage = [flag for flag in found["flags"] if flag["code"] == "leakage"]
    assert not any(flag["blocks"] for flag in leakage)
    # a model that was not trained without them
    found = command(*arguments, "--tuned", trained[0]).json
    assert any(flag["code"] == "leakage" and flag["blocks"] for flag in found["flags"])
    for arguments in (("train", "--base", tiny_model, "--out", tmp_path / "no"),
                      ("compare", "--base", tiny_model, "--tuned", model)):  # fmt: skip
        strict = command(*arguments, "--data", data, "--strict")
        assert (strict.code, len(strict.lines)) == (7, 1)
        assert "--strict" in strict.err
    assert not (tmp_path / "no").exists()


def test_one_pair_in_two_splits_is_7(command, make_beir, tmp_path, tiny_model):
    data = make_beir(tmp_path / "copied", copy=True)
    for arguments in (("train", "--out", tmp_path / "out"), ("compare", "--tuned", tiny_model)):
        result = command(*arguments, "--data", data, "--base", tiny_model)
        assert (result.code, len(result.lines)) == (7, 1)
        assert "q0-0 (train) and q0-0 (test)" in result.err


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels"])
def test_missing_files_of_a_beir_folder_are_named(command, small_beir, tmp_path, tiny_model, name):
    data = tmp_path / "data"
    shutil.copytree(small_beir, data)
    shutil.rmtree(data / name) if name == "qrels" else (data / name).unlink()
    for arguments in (
        ("train", "--base", tiny_model, "--out", tmp_path / "out"),
        ("evaluate", "bm25"),
        ("compare", "--base", tiny_model, "--tuned", tiny_model),
        ("search", "robot", "--system", "bm25"),
    ):
        result = command(*arguments, "--data", data)
        assert (result.code, len(result.lines)) == (2, 1)
        assert name in result.err


def test_what_does_not_exist_is_named(command, small_beir, tmp_path, tiny_model):
    none = tmp_path / "none"
    for arguments in (
        ("train", "--data", none, "--base", tiny_model, "--out", tmp_path / "out"),
        ("train", "--data", small_beir, "--base", none, "--out", tmp_path / "out"),
        ("evaluate", "--data", small_beir, none),
        ("evaluate", "--data", small_beir, "hybrid:bm25"),
        ("compare", "--data", small_beir, "--base", none, "--tuned", tiny_model),
        ("compare", "--data", small_beir, "--base", tiny_model, "--tuned", none),
        ("compare", "--data", small_beir, "--base", "bm25", "--tuned", tiny_model),
        ("search", "robot", "--data", small_beir, "--system", none),
        ("search", "  ", "--data", small_beir, "--system", "bm25"),
    ):
        result = command(*arguments)
        assert (result.code, len(result.lines), result.out) == (2, 1, ""), arguments
        assert "none" in result.err or "expected" in result.err or "empty" in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_split_that_is_not_there_lists_those_that_are(command, small_beir):
    result = command("evaluate", "--data", small_beir, "--split", "validation", "bm25")
    assert (result.code, len(result.lines), result.out) == (3, 1, "")
    assert all(name in result.err for name in ("validation", "train", "dev", "test"))


def test_settings_that_do_not_fit_the_model_are_found_first(
    command, small_beir, tmp_path, tiny_model
):
    for setting, said in (
        ("training.matryoshka=[64,32]", "[64] above the model's dimension 32"),
        ("training.device=cuda:9", "cuda:9"),
        ("training.trainer={num_train_epoch: 3}", "num_train_epoch"),
        ("evaluation.metric=accuracy", "ndcg@"),
        ("evaluation.probe=nowhere", "evaluation.probe"),
    ):
        result = command("train", "--data", small_beir, "--base", tiny_model,
                         "--out", tmp_path / "out", "--set", setting)  # fmt: skip
        assert (result.code, len(result.lines)) == (2, 1), result
        assert said in result.err
    assert list(tmp_path.iterdir()) == []


def test_a_base_that_cannot_read_the_text_stops_training(command, make_beir, tmp_path, tiny_model):
    data = make_beir(tmp_path / "chinese", chinese=True)
    result = command("train", "--data", data, "--base", tiny_model, "--out", tmp_path / "out")
    assert (result.code, len(result.lines)) == (2, 1)
    assert "unknown" in result.err
    assert "training.allow_unknown_tokens" in result.err
    assert not (tmp_path / "out").exists()


def test_training_on_other_data_is_not_mixed_up(
    command, make_beir, small_beir, tmp_path, tiny_model
):
    """Half-done work of another recipe: refused, unless --fresh."""
    work = tmp_path / ".out.work"
    (work / "train-0123456789ab").mkdir(parents=True)
    (work / "recipe.json").write_text(
        json.dumps({"version": 1, "settings": {}, "providers": {}, "inputs": {"data": "other"}})
    )
    arguments = ("train", "--data", small_beir, "--base", tiny_model, "--out", tmp_path / "out")
    refused = command(*arguments, *QUICK)
    assert (refused.code, len(refused.lines)) == (7, 1)
    assert "--fresh" in refused.err
    assert command(*arguments, *QUICK, "--fresh").code == 0


def test_search_finds_the_passage(command, small_beir, trained):
    text = json.loads((small_beir / "corpus.jsonl").read_text().splitlines()[7])["text"]
    for system in ("bm25", str(trained[0]), f"hybrid:{trained[0]}"):
        result = command("search", text, "--data", small_beir, "--system", system, "-k", "3",
                         "--json")  # fmt: skip
        assert result.code == 0, result.err
        assert set(result.json) == {"query", "system", "hits"}
        hits = result.json["hits"]
        assert len(hits) == 3
        assert hits[0]["id"] == "p7"
        assert hits[0]["text"] == text
        assert [hit["score"] for hit in hits] == sorted((h["score"] for h in hits), reverse=True)
    table = command("search", text, "--data", small_beir, "--system", "bm25")
    assert text[:40] in table.out.splitlines()[1]


def test_a_half_usable_beir_folder_is_4(command, small_beir, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(small_beir, data)
    with (data / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "broken"\n')
    result = command("evaluate", "--data", data, "bm25", "--json")
    assert result.code == 4
    assert result.json["queries"] == 36
