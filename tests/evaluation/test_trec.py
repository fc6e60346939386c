"""Run files and qrels: read as trec_eval reads them, written so that it agrees with us."""

import itertools

import ir_measures
import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.systems import parse_system
from embedtune.evaluation.trec import check_run, qrels_text, read_qrels, read_run, run_text
from embedtune.retrieve.order import tie_breaker

TIED = (1, 1, 1, 0.99999999, 0.5, 0.5)


def written(folder, name: str, *lines: str):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_a_run_is_ordered_by_score_whatever_the_ranks_say(tmp_path):
    path = written(tmp_path, "a.trec", "q1 Q0 c1 1 0.5 me", "q1\tQ0\tc2\t2\t7e-1\tme", "",
                   "q2  Q0  c3  9  -1  me")  # fmt: skip
    rejects = []
    assert read_run(path, rejects) == {"q1": [("c2", 0.7), ("c1", 0.5)], "q2": [("c3", -1.0)]}
    assert rejects == []


def test_equal_scores_are_not_won_by_position(tmp_path):
    ids = [f"c{number}" for number in range(12)]
    lines = [f"q Q0 {chunk} {rank} 1.0 me" for rank, chunk in enumerate(ids)]
    one = read_run(written(tmp_path, "a.trec", *lines), [])
    other = read_run(written(tmp_path, "b.trec", *reversed(lines)), [])
    assert one == other
    assert [chunk for chunk, _ in one["q"]] == sorted(ids, key=tie_breaker)


def test_faulty_lines_of_a_run_are_rejected_with_their_line(tmp_path):
    path = written(tmp_path, "a.trec", "q1 Q0 c1 1 0.5 me", "q1 Q0 c2 2 high me", "q1 Q0 c3 3",
                   "q1 Q0 c1 4 0.1 me", "q1 Q0 c4 5 nan me", "q1 Q0 c5 6 0.2 me")  # fmt: skip
    rejects = []
    assert read_run(path, rejects) == {"q1": [("c1", 0.5), ("c5", 0.2)]}
    assert [(r.file, r.line, r.code) for r in rejects] == [
        (str(path), 2, "run"), (str(path), 3, "cells"), (str(path), 4, "run"), (str(path), 5, "run")
    ]  # fmt: skip
    assert "'high'" in rejects[0].message
    assert "expected query, Q0, passage" in rejects[1].message
    assert "twice" in rejects[2].message
    assert all(reject.unusable for reject in rejects)


def test_qrels_are_read_with_grades_and_faults(tmp_path):
    path = written(tmp_path, "a.qrels", "q1 0 c1 2", "q1 0 c2 0", "q1 0 c3 -1", "q2 0 c1 1.0",
                   "q2 0 c1 1", "q2 0 c1 2", "q2 0 c2 much", "q2 c2 1", "q3 0 c1 0")  # fmt: skip
    rejects = []
    assert read_qrels(path, rejects) == {"q1": {"c1": 2}, "q2": {"c1": 1}}
    assert [(r.line, r.unusable) for r in rejects] == [(5, False), (6, True), (7, True), (8, True)]


@pytest.mark.parametrize("read", [read_run, read_qrels])
def test_no_file_and_no_usable_line(read, tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read(tmp_path / "none.trec", [])
    with pytest.raises(NothingUsable, match=r"empty\.trec: no usable line$"):
        read(written(tmp_path, "empty.trec", ""), [])
    with pytest.raises(NothingUsable, match=r"page\.trec:1: a web page"):
        read(written(tmp_path, "page.trec", "<!doctype html><p>404</p>"), [])


def test_a_run_of_other_data_is_refused_with_examples(small):
    check_run({"q1": [("c1", 1.0)]}, small, "a.trec")
    with pytest.raises(IntegrityError, match=r"1 of 2 passages.*e\.g\. 7; ids there look like c1"):
        check_run({"q1": [("c1", 1.0), ("7", 0.5)]}, small, "a.trec")
    with pytest.raises(IntegrityError, match=r"1 of 1 queries are not in small, e\.g\. x9"):
        check_run({"x9": [("c1", 1.0)]}, small, "a.trec")


def test_what_is_written_is_read_again(tmp_path):
    run = {"q 1": [("c 1", 0.75), ("c2", 0.5)], "q2": [("c2", 3.25)]}
    assert read_run(written(tmp_path, "a", run_text(run, "me").rstrip("\n")), []) == run
    qrels = {"q1": {"c1": 2, "c2": 1}, "问": {"答": 1}}
    assert read_qrels(written(tmp_path, "b", qrels_text(qrels).rstrip("\n")), []) == qrels


def test_scores_that_trec_eval_could_not_tell_apart_keep_their_order(tmp_path):
    ranking = [(chunk, score) for chunk, score in zip("abcdef", TIED, strict=True)]
    shown = [float(line.split()[4]) for line in run_text({"q": ranking}, "me").splitlines()]
    assert shown == pytest.approx([score for _, score in ranking], abs=1e-6)
    assert all(one > other for one, other in itertools.pairwise(shown))
    again = read_run(written(tmp_path, "a", run_text({"q": ranking}, "me").rstrip("\n")), [])
    assert [chunk for chunk, _ in again["q"]] == list("abcdef")


def test_trec_eval_finds_the_same_figures_in_what_was_written(small, tmp_path):
    class Coarse(HashingEmbedder):
        """So few dimensions that many scores are equal."""

    evaluator = Evaluator(small, embedder_of=lambda _: Coarse(3))
    scores = evaluator.score(parse_system("hashing"), "test")
    run = written(tmp_path, "run", run_text(scores.rankings, "hashing").rstrip("\n"))
    qrels = written(tmp_path, "qrels", qrels_text(evaluator.judgements("test")).rstrip("\n"))
    measures = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "hit@1": "Success@1", "map@100": "AP@100"}
    for ours, theirs in measures.items():
        [value] = ir_measures.calc_aggregate(
            [ir_measures.parse_measure(theirs)],
            ir_measures.read_trec_qrels(str(qrels)),
            ir_measures.read_trec_run(str(run)),
        ).values()
        assert value == pytest.approx(scores.metrics[ours], abs=1e-6), ours


def test_a_run_is_measured_as_the_system_that_made_it(small, tmp_path):
    evaluator = Evaluator(small)
    for name in ("bm25", "hashing"):
        own = evaluator.score(parse_system(name), "test")
        path = written(tmp_path, name, run_text(own.rankings, name).rstrip("\n"))
        again = evaluator.score_rankings("again", read_run(path, []), "test")
        assert again.metrics == pytest.approx(own.metrics)
        assert again.kind == "run"
        assert again.dims == {}
    part = evaluator.score_rankings("part", {"q2": [("c2", 1.0)]}, "test")
    assert part.metrics["hit@1"] == 0.25  # the three queries without a line found nothing
