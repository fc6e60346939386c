"""Tables for a spreadsheet: nothing in a cell runs, nothing is shifted, no two files are one."""

import csv
import io
import json

from embedtune.evaluation.measures import Measures
from embedtune.evaluation.tables import per_query_csv, systems_csv, trec_files
from embedtune.results import SystemScores


def scores(name: str, rankings: dict) -> SystemScores:
    per_query = {"ndcg@10": dict.fromkeys(rankings, 0.5)}
    return SystemScores(name, "dense", {"ndcg@10": 0.5}, per_query, rankings,
                        intervals={"ndcg@10": (0.25, 0.75)}, facts={"groups": 2})  # fmt: skip


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_cells_that_a_spreadsheet_would_run_are_neutralised():
    formulas = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "plain"]
    system = scores("=cmd", dict.fromkeys(formulas, (("=c", 1.5), ("c2", -0.5))))
    rows = rows_of(per_query_csv([system], {query: frozenset(["c2"]) for query in formulas}, 1))
    assert [row["query"] for row in rows] == [*(f"'{query}" for query in formulas[:-1]), "plain"]
    assert {row["system"] for row in rows} == {"'=cmd"}
    for row in rows:
        assert (row["hit"], row["rank"]) == ("0", "2")
        assert json.loads(row["retrieved"]) == ["=c"]  # inside brackets nothing runs
        assert json.loads(row["scores"]) == [1.5]
    assert rows_of(systems_csv([system]))[0]["system"] == "'=cmd"


def test_a_query_whose_passage_was_not_found_has_no_rank():
    [row] = rows_of(per_query_csv([scores("a", {"q": (("c1", 1.0),)})], {"q": frozenset("x")}, 10))
    assert (row["hit"], row["rank"]) == ("0", "")


def test_figures_of_rankings_and_rows_stand_in_one_line():
    measures = Measures("a", {"cosine_accuracy": 0.75}, {"cosine_accuracy": (0.5, 1.0)}, 8, 4,
                        {16: {"cosine_accuracy": 0.75}, 8: {"cosine_accuracy": 0.5}})  # fmt: skip
    ranked = [scores(name, {"q": (("c1", 1.0),)}) for name in ("a", "bm25")]
    first, short, other = rows_of(systems_csv(ranked, [measures]))
    assert first == {
        "system": "a", "dimension": "16", "queries": "1", "rows": "8", "groups": "2",
        "ndcg@10": "0.5", "ndcg@10 low": "0.25", "ndcg@10 high": "0.75",
        "cosine_accuracy": "0.75", "cosine_accuracy low": "0.5", "cosine_accuracy high": "1.0",
    }  # fmt: skip
    assert (short["dimension"], short["ndcg@10"], short["cosine_accuracy"]) == ("8", "", "0.5")
    assert (other["system"], other["cosine_accuracy"], other["rows"]) == ("bm25", "", "")
    [alone] = rows_of(systems_csv([], [Measures("a", {"silhouette": -0.1}, {}, 5, 5)]))
    assert (alone["silhouette"], alone["rows"], alone["queries"]) == ("-0.1", "5", "")


def test_every_system_has_a_file_of_its_own_inside_the_folder():
    names = ["../../etc/passwd", "a b", "a/b", "问答 模型", "..", "@"]
    files = trec_files([scores(name, {"q": (("c1", 1.0),)}) for name in names], {"q": {"c1": 1}})
    assert len(files) == len(names) + 1
    assert set(files) == {
        "qrels.trec", "runs/etc-passwd.trec", "runs/a-b.trec", "runs/a-b-2.trec",
        "runs/问答-模型.trec", "runs/system.trec", "runs/system-2.trec",
    }  # fmt: skip
    assert files["runs/a-b-2.trec"] == "q Q0 c1 1 1 a-b-2\n"
    assert files["qrels.trec"] == "q 0 c1 1\n"
