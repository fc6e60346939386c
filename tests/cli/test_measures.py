"""``evaluate`` by the format of the data: figures, files, faults."""

import csv
import io
import json
import random

import ir_measures
import pytest

WORDS = ["harbour", "lantern", "rope", "winter", "ticket", "captain", "island", "crate", "engine",
         "weather", "cabin", "bell"]  # fmt: skip
SIGNS = "港船票风灯绳岛舱货潮早晚钟窗梯甲板壶毯图哨"


def text(number: int, length: int = 9) -> str:
    draw = random.Random(number)
    if number % 3 == 2:
        return "".join(draw.choice(SIGNS) for _ in range(2 * length))
    return " ".join(draw.choice(WORDS) for _ in range(length)) + f" {number}"


def write(path, rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    path = tmp_path_factory.mktemp("triplets") / "rows.jsonl"
    write(path, ({"anchor": text(n)[:20] + "?", "positive": text(n), "negative": text(n + 100)}
                 for n in range(30)))  # fmt: skip
    return path


def folder_of(folder, rows):
    """Rows as train, dev and test, a third each."""
    folder.mkdir(parents=True)
    for place, name in enumerate(("train", "dev", "test")):
        write(folder / f"{name}.jsonl", rows[place::3])
    return folder


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    rows = []
    for number in range(90):
        one = text(number)
        share = (number // 3) % 5
        other = one[: len(one) * share // 4] + text(number + 500)[: len(one) * (4 - share) // 4]
        rows.append({"sentence1": one, "sentence2": other, "score": share / 4})
    return folder_of(tmp_path_factory.mktemp("scored") / "data", rows)


@pytest.fixture(scope="module")
def labelled_pairs(scored, tmp_path_factory):
    rows = [json.loads(line) for name in ("train", "dev", "test")
            for line in (scored / f"{name}.jsonl").read_text("utf-8").splitlines()]  # fmt: skip
    rows = [{**row, "score": int(row["score"] >= 0.5)} for row in rows]
    return folder_of(tmp_path_factory.mktemp("pairs") / "data", rows)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    rows = [
        {"text": f"{WORDS[n % 4]} {WORDS[n % 4]} {text(n, 3)}", "label": f"class {n % 4}"}
        for n in range(120)
    ]
    return folder_of(tmp_path_factory.mktemp("labelled") / "data", rows)


def figures(result, name: str) -> dict:
    [found] = [system for system in result.json["systems"] if system["name"] == name]
    return found


def test_triplets_have_accuracy_beside_the_ranking(triplets, command):
    result = command("evaluate", "--data", triplets, "bm25", "hashing", "--json")
    assert result.code == 0, result.err
    assert (result.json["format"], result.json["queries"], result.json["rows"]) == (
        "triplets", 30, 30
    )  # fmt: skip
    model = figures(result, "hashing")
    for name in ("cosine", "dot", "euclidean", "manhattan"):
        low, high = model["intervals"][f"{name}_accuracy"]
        assert low <= model["metrics"][f"{name}_accuracy"] <= high
    assert model["metrics"]["cosine_accuracy"] > 0.7
    assert model["metrics"]["ndcg@10"] > 0.5
    assert set(model["dims"]) == {"256", "128", "64"}
    assert model["dims"]["256"] == model["metrics"]
    assert "cosine_accuracy" not in figures(result, "bm25")["metrics"]
    assert [line for line in result.lines if "no triplet accuracy for bm25" in line]
    table = command("evaluate", "--data", triplets, "bm25", "hashing").out
    assert {line.split()[1] for line in table.split("\n\n")[1].splitlines()} == {
        "similarity", "cosine", "dot", "euclidean", "manhattan"
    }  # fmt: skip


def test_scored_pairs_have_correlations(scored, command):
    result = command("evaluate", "--data", scored, "hashing", "bm25", "--json")
    assert result.code == 0, result.err
    assert (result.json["format"], result.json["rows"]) == ("scored", 30)
    model = figures(result, "hashing")
    assert set(model["metrics"]) == {
        f"{kind}_{name}" for kind in ("pearson", "spearman")
        for name in ("cosine", "dot", "euclidean", "manhattan")
    }  # fmt: skip
    assert model["metrics"]["spearman_cosine"] > 0.5
    assert [line for line in result.lines if "left out: bm25" in line]
    assert [system["name"] for system in result.json["systems"]] == ["hashing"]
    whole = command("evaluate", "--data", scored, "hashing", "--split", "all", "--json")
    assert whole.json["rows"] == 90


def test_labelled_pairs_have_thresholds(labelled_pairs, command):
    result = command("evaluate", "--data", labelled_pairs, "hashing", "--split", "dev", "--json")
    assert result.code == 0, result.err
    model = figures(result, "hashing")
    for figure in ("ap", "f1", "accuracy"):
        assert 0.5 < model["metrics"][f"cosine_{figure}"] <= 1
        assert f"cosine_{figure}" in model["intervals"]
    assert -1 <= model["metrics"]["cosine_f1_threshold"] <= 1
    assert model["metrics"]["euclidean_f1_threshold"] > 0  # a distance


def test_labelled_texts_have_neighbours_and_a_probe(labelled, command):
    result = command("evaluate", "--data", labelled, "hashing", "short=hashing:32", "--json")
    assert result.code == 0, result.err
    assert (result.json["format"], result.json["rows"]) == ("labelled", 40)
    model = figures(result, "hashing")
    assert set(model["metrics"]) == {"knn_accuracy@10", "probe_accuracy", "silhouette"}
    assert set(model["intervals"]) == set(model["metrics"])
    assert model["metrics"]["probe_accuracy"] > 0.6
    assert model["dims"]["256"]["knn_accuracy@10"] == model["metrics"]["knn_accuracy@10"]
    table = command("evaluate", "--data", labelled, "hashing", "short=hashing:32").out
    assert [line.split()[0] for line in table.splitlines()] == ["system", "hashing", "short"]


def test_a_dimension_and_a_similarity_may_be_asked_for(triplets, labelled, command):
    for data in (triplets, labelled):
        result = command("evaluate", "--data", data, "hashing", "--json",
                         "--set", "evaluation.dimension=64")  # fmt: skip
        model = figures(result, "hashing")
        assert model["dims"]["64"].items() <= model["metrics"].items()
        refused = command("evaluate", "--data", data, "hashing", "--quiet",
                          "--set", "evaluation.dimension=4096")  # fmt: skip
        assert (refused.code, len(refused.lines), refused.out) == (2, 1, "")
    plain = command("evaluate", "--data", triplets, "hashing", "--json")
    dot = command("evaluate", "--data", triplets, "hashing", "--json",
                  "--set", "evaluation.metric=dot_ndcg@10")  # fmt: skip
    assert figures(dot, "hashing")["metrics"] != figures(plain, "hashing")["metrics"]


# ---- files


def test_out_leaves_tables_and_files_that_trec_eval_reads(small_beir, command, tmp_path):
    out = tmp_path / "found"
    result = command("evaluate", "--data", small_beir, "bm25", "@=hashing", "--out", out, "--json")
    assert result.code == 0, result.err
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {"systems.csv", "per_query.csv", "qrels.trec", "runs/bm25.trec",
                     "runs/system.trec"}  # fmt: skip
    rows = list(csv.DictReader(io.StringIO((out / "systems.csv").read_text("utf-8"))))
    assert [(row["system"], row["dimension"]) for row in rows] == [
        ("bm25", ""), ("'@", "256"), ("'@", "128"), ("'@", "64")
    ]  # fmt: skip
    assert float(rows[0]["ndcg@10"]) == figures(result, "bm25")["metrics"]["ndcg@10"]
    assert float(rows[0]["ndcg@10 low"]) == figures(result, "bm25")["intervals"]["ndcg@10"][0]
    queries = list(csv.DictReader(io.StringIO((out / "per_query.csv").read_text("utf-8"))))
    assert len(queries) == 2 * 36
    for row in queries:
        found, scores = json.loads(row["retrieved"]), json.loads(row["scores"])
        assert len(found) == len(scores) <= 10
        assert (row["hit"] == "1") == (f"p{row['query'][1:].split('-')[0]}" in found)
        assert row["hit"] == "0" or found.index(f"p{row['query'][1:].split('-')[0]}") == (
            int(row["rank"]) - 1
        )
    [value] = ir_measures.calc_aggregate(
        [ir_measures.nDCG @ 10],
        ir_measures.read_trec_qrels(str(out / "qrels.trec")),
        ir_measures.read_trec_run(str(out / "runs" / "bm25.trec")),
    ).values()
    assert value == pytest.approx(figures(result, "bm25")["metrics"]["ndcg@10"], abs=1e-6)


def test_out_replaces_an_evaluation_and_nothing_else(small_beir, labelled, command, tmp_path):
    out = tmp_path / "found"
    assert command("evaluate", "--data", small_beir, "bm25", "hashing", "--out", out).code == 0
    assert command("evaluate", "--data", small_beir, "bm25", "--out", out).code == 0
    assert [path.name for path in (out / "runs").iterdir()] == ["bm25.trec"]
    assert command("evaluate", "--data", labelled, "hashing", "--out", out).code == 0
    assert sorted(path.name for path in out.iterdir()) == ["runs", "systems.csv"]
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work", "utf-8")
    refused = command("evaluate", "--data", small_beir, "bm25", "--out", other)
    assert (refused.code, len(refused.lines)) == (2, 1)
    assert [path.name for path in other.iterdir()] == ["chapter.txt"]


# ---- TREC in


def test_a_run_is_a_system_like_any_other(small_beir, command, tmp_path):
    out = tmp_path / "found"
    own = command("evaluate", "--data", small_beir, "bm25", "--out", out, "--json")
    run = out / "runs" / "bm25.trec"
    again = command("evaluate", "--data", small_beir, "hashing", "--run", f"theirs={run}", "--json")
    assert again.code == 0, again.err
    theirs, ours = figures(again, "theirs"), figures(own, "bm25")
    assert theirs["metrics"] == pytest.approx(ours["metrics"])
    assert theirs["dims"] == {}
    alone = command("evaluate", "--data", small_beir, "--run", run, "--json")
    assert [system["name"] for system in alone.json["systems"]] == ["bm25"]
    lines = run.read_text("utf-8").splitlines()
    short = tmp_path / "short.trec"
    short.write_text("\n".join([*(line for line in lines if line.split()[3] == "1"), "q p"]))
    cut = command("evaluate", "--data", small_beir, "--run", short, "--json")
    assert cut.code == 4  # a line of it could not be used
    assert [line for line in cut.lines if "at most 1 passages a query" in line]
    assert figures(cut, "short")["metrics"]["hit@5"] == ours["metrics"]["hit@1"]


def test_qrels_stand_in_for_those_of_the_split(small_beir, command, tmp_path):
    path = tmp_path / "mine.qrels"
    path.write_text("q3-0 0 p3 1\nq4-0 0 p50 3\nq4-0 0 p4\n", "utf-8")
    result = command("evaluate", "--data", small_beir, "bm25", "--qrels", path, "--json")
    assert result.code == 4
    assert result.json["queries"] == 2
    assert figures(result, "bm25")["metrics"]["hit@1"] == 0.5  # p50 is not what q4-0 asks for


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("q3-0 0 nowhere 1", 7, "nowhere"),
        ("stranger 0 p3 1", 7, "stranger"),
        ("q3-0 0 p3 0", 3, "no query of split"),
        ("q3-0 0 p3 much", 3, ":1: the grade is 'much'"),
    ],
)
def test_qrels_that_cannot_be_measured(small_beir, command, tmp_path, line, code, said):
    path = tmp_path / "mine.qrels"
    path.write_text(line + "\n", "utf-8")
    result = command("evaluate", "--data", small_beir, "bm25", "--qrels", path)
    assert (result.code, len(result.lines), result.out) == (code, 1, "")
    assert said in result.err


def test_faults_before_any_work(small_beir, scored, labelled, triplets, command, tmp_path):
    run = tmp_path / "bm25.trec"
    run.write_text("q42-0 Q0 p42 1 1.0 x\n", "utf-8")
    other = tmp_path / "other.trec"
    other.write_text("q42-0 Q0 x42 1 1.0 x\n", "utf-8")
    for code, said, arguments in (
        (2, "no system named", ("--data", small_beir)),
        (2, "no such file", ("--data", small_beir, "--run", tmp_path / "none.trec")),
        (2, "two systems are called bm25", ("--data", small_beir, "bm25", "--run", run)),
        (2, "--run and --qrels need passages", ("--data", scored, "hashing", "--run", run)),
        (2, "no system is left", ("--data", scored, "bm25", "--quiet")),
        (2, "no system is left", ("--data", labelled, "bm25", "hybrid:hashing", "--quiet")),
        (3, "no split 'tset'", ("--data", scored, "hashing", "--split", "tset")),
        (3, "no split 'tset'", ("--data", labelled, "hashing", "--split", "tset")),
        (7, "other data", ("--data", small_beir, "--run", other)),
    ):
        result = command("evaluate", *arguments)
        assert (result.code, len(result.lines), result.out) == (code, 1, ""), arguments
        assert said in result.err


def test_rows_of_which_nothing_can_be_said(command, tmp_path):
    alike = folder_of(tmp_path / "alike", [
        {"sentence1": text(n), "sentence2": text(n + 50), "score": 0.5} for n in range(12)
    ])  # fmt: skip
    single = folder_of(tmp_path / "one", [{"text": text(n), "label": "only"} for n in range(12)])
    for data, said in ((alike, "all 4 scores are 0.5"), (single, "one class only")):
        result = command("evaluate", "--data", data, "hashing")
        assert (result.code, len(result.lines), result.out) == (3, 1, "")
        assert said in result.err


def test_any_first_search_is_read_again_by_a_cross_encoder(
    small_beir, tiny_model, tiny_cross_encoder, command, tmp_path, monkeypatch
):
    from sentence_transformers import CrossEncoder

    ask = f"rerank={tiny_cross_encoder}&depth=20"
    systems = ("bm25", f"read=bm25?{ask}", f"dense={tiny_model}?{ask}",
               f"both=hybrid:{tiny_model}?{ask}")  # fmt: skip
    options = ("evaluate", "--data", small_beir, *systems, "--json")
    made = command(*options, "--out", tmp_path / "out")
    assert made.code == 0, made.err
    with (tmp_path / "out" / "systems.csv").open(encoding="utf-8", newline="") as file:
        names = [row["system"] for row in csv.DictReader(file)]
    assert sorted(set(names)) == ["bm25", "both", "dense", "read"]

    with (tmp_path / "out" / "per_query.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    first, again = ({row["query"]: row for row in rows if row["system"] == name}
                    for name in ("bm25", "read"))  # fmt: skip
    corpus = {
        row["_id"]: row["text"]
        for row in map(json.loads, (small_beir / "corpus.jsonl").read_text("utf-8").splitlines())
    }
    asked = {
        row["_id"]: row["text"]
        for row in map(json.loads, (small_beir / "queries.jsonl").read_text("utf-8").splitlines())
    }
    model = CrossEncoder(str(tiny_cross_encoder), device="cpu")
    moved = 0
    for query, row in again.items():
        kept = json.loads(row["retrieved"])
        numbers = model.predict([(asked[query], corpus[chunk]) for chunk in kept])
        assert (numbers[1:] <= numbers[:-1] + 1e-5).all()
        moved += kept != json.loads(first[query]["retrieved"])
    assert moved > len(again) / 2

    def refuse(*_, **__):
        raise AssertionError("a pair was read twice")

    monkeypatch.setattr(CrossEncoder, "predict", refuse)
    repeated = command(*options)
    assert repeated.code == 0, repeated.err
    assert repeated.json["systems"] == made.json["systems"]
