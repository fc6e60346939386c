"""Measuring systems: sharing, duplicates, damaged data, the figures of the shared data sets."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from embedtune.embed.hashing import HashingEmbedder
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.evaluation.evaluate import Evaluator, restricted
from embedtune.evaluation.metrics import STANDARD, score
from embedtune.evaluation.quantise import nearest, quantise
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.systems import parse_system
from embedtune.records import Chunk, Query, RetrievalSet
from embedtune.retrieve import bm25
from embedtune.retrieve.fusion import CHOICES, Fusion
from embedtune.retrieve.rerank import ScriptedReranker

BM25 = parse_system("bm25")
HASHING = parse_system("hashing")
HYBRID = parse_system("hybrid:hashing")
SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


class Counting(HashingEmbedder):
    """Counts the texts it encodes."""

    def __init__(self) -> None:
        super().__init__(256)
        self.encoded: list[str] = []

    def embed(self, texts, role):
        self.encoded.extend(texts)
        return super().embed(texts, role)


def test_scores_hold_means_per_query_intervals_rankings_and_dims(small):
    scores = Evaluator(small).score(HASHING, "test")
    assert tuple(scores.metrics) == STANDARD
    assert set(scores.per_query["ndcg@10"]) == {"q2", "q4", "q5", "q6"}
    for name, values in scores.per_query.items():
        assert scores.metrics[name] == pytest.approx(np.mean(list(values.values())))
        low, high = scores.intervals[name]
        assert 0 <= low <= high <= 1
    assert list(scores.dims) == [256, 128, 64]
    assert scores.dims[256] == scores.metrics
    ranking = scores.rankings["q2"]
    assert ranking[0][0] == "c2"
    assert len(ranking) == 6  # the whole corpus, k is cut to it
    assert scores.metrics["recall@10"] == 1.0
    json.dumps(scores.as_json(), allow_nan=False)


def test_every_text_is_encoded_once_whatever_is_asked(small):
    embedder = Counting()
    evaluator = Evaluator(small, embedder_of=lambda _: embedder)
    for split in ("dev", "test"):
        evaluator.score(HASHING, split)
        evaluator.score(HYBRID, split)
    assert len(embedder.encoded) == len(set(embedder.encoded)) == 6 + 6


def test_a_relevant_id_that_is_not_in_the_corpus_is_an_error_with_examples(small):
    broken = dataclasses.replace(small, qrels={"test": {"q1": {"1": 1}, "q2": {"c2": 1}}})
    with pytest.raises(IntegrityError, match=r"1 relevant chunks.*q1 -> 1; ids there.*'c1'"):
        Evaluator(broken).score(BM25, "test")


def test_a_judged_query_without_text_is_an_error(small):
    broken = dataclasses.replace(small, qrels={"test": {"ghost": {"c1": 1}}})
    with pytest.raises(IntegrityError, match=r"no text.*ghost"):
        Evaluator(broken).score(BM25, "test")


@pytest.mark.parametrize("qrels", [{}, {"q1": {}}, {"q1": {"c1": 0}}])
def test_a_split_without_relevant_pairs_gives_no_figure(small, qrels):
    with pytest.raises(NothingUsable, match="no query of split 'test'"):
        Evaluator(dataclasses.replace(small, qrels={"test": qrels})).score(BM25, "test")


def test_an_unknown_split_is_named_with_the_known_ones(small):
    with pytest.raises(NothingUsable, match="'tset'; there are dev, test"):
        Evaluator(small).score(BM25, "tset")


def test_an_empty_corpus_is_refused(small):
    with pytest.raises(NothingUsable, match="corpus is empty"):
        Evaluator(dataclasses.replace(small, chunks=()))


@pytest.mark.parametrize("judged", ["a", "b"])
@pytest.mark.parametrize("system", [BM25, HASHING, HYBRID])
def test_either_copy_of_a_passage_counts_and_takes_one_place(judged, system):
    texts = {"a": "paid in thirty days", "b": "paid in thirty days", "c": "paid by bank in days"}
    chunks = tuple(Chunk(id, id, 0, 1, "", text) for id, text in texts.items())
    data = RetrievalSet(
        "x", chunks, (Query("q", "paid in thirty days"),), {"t": {"q": {judged: 1}}}
    )
    scores = Evaluator(data).score(system, "t")
    assert scores.metrics["hit@1"] == scores.metrics["ndcg@10"] == 1.0
    assert [chunk for chunk, _ in scores.rankings["q"]] == [judged, "c"]
    assert scores.facts["equal_texts"] == 1


def test_a_near_duplicate_of_a_relevant_chunk_counts_as_it_once():
    texts = {
        "v1": "charge the battery every night",
        "v2": "charge the battery every night, please",
        "x": "the battery door",
    }
    chunks = tuple(Chunk(id, id, 0, 1, "", text) for id, text in texts.items())
    query = Query("q", "charge the battery every night, please")
    data = RetrievalSet("x", chunks, (query,), {"t": {"q": {"v1": 1}}})
    assert Evaluator(data).score(HASHING, "t").metrics["hit@1"] == 0.0
    scores = Evaluator(data, near_duplicates=[("v1", "v2")]).score(HASHING, "t")
    assert scores.metrics["ndcg@10"] == scores.metrics["recall@10"] == 1.0
    assert scores.facts["near_duplicate_hits"] == 1


def test_groups_are_documents_joined_by_queries_and_near_duplicates():
    chunks = tuple(Chunk(id, f"d{id}", 0, 1, "", f"text {id}") for id in "abcdef")
    queries = tuple(Query(f"q{i}", "text") for i in range(4))
    qrels = {"t": {"q0": {"a": 1, "b": 1}, "q1": {"b": 1}, "q2": {"c": 1}, "q3": {"e": 1}}}
    data = RetrievalSet("x", chunks, queries, qrels)
    groups = Evaluator(data, near_duplicates=[("c", "d"), ("d", "e")]).groups("t")
    assert groups["q0"] == groups["q1"] != groups["q2"] == groups["q3"]
    given = Evaluator(data, groups={"a": "g", "b": "g", "c": "h", "e": "i"}).groups("t")
    assert given == {"q0": "g", "q1": "g", "q2": "h", "q3": "i"}


def test_boilerplate_joins_no_groups():
    chunks = tuple(Chunk(id, id, 0, 1, "", "all rights reserved") for id in "abcd")
    queries = tuple(Query(id, "rights") for id in "qr")
    data = RetrievalSet("x", chunks, queries, {"t": {"q": {"a": 1}, "r": {"b": 1}}})
    assert len(set(Evaluator(data).groups("t").values())) == 2


def test_constant_vectors_are_named(small):
    class Collapsed(HashingEmbedder):
        def embed(self, texts, role):
            return np.ones((len(texts), 8), np.float32)

    with pytest.raises(IntegrityError, match=r"hashing-256.*the same"):
        Evaluator(small, embedder_of=lambda _: Collapsed()).score(HASHING, "test")


@pytest.mark.parametrize("method", ["scores", "ranks"])
def test_the_weighting_that_is_best_on_dev_is_chosen(small, method):
    evaluator = Evaluator(small, EvaluationSettings(fusion=method))
    chosen = evaluator.best_fusion([HYBRID])
    by_hand = {
        fusion: evaluator.score(HYBRID, "dev", fusion=fusion).metrics["ndcg@10"]
        for fusion in CHOICES[method]
    }
    assert by_hand[chosen] == max(by_hand.values())
    assert evaluator.score(HYBRID, "test").facts["fusion"] == chosen.as_json()
    own = Fusion("ranks", 0.9, 3)
    assert evaluator.score(HYBRID, "test", fusion=own).facts["fusion"] == {
        "method": "ranks", "weight": 0.9, "k": 3,
    }  # fmt: skip


def test_both_weigh_the_same_without_dev(small):
    without = dataclasses.replace(small, qrels={"test": small.qrels["test"]})
    facts = Evaluator(without).score(HYBRID, "test").facts
    assert facts["fusion"] == {"method": "scores", "weight": 0.5, "k": None}
    # nor is dev chosen on and measured at once
    assert Evaluator(small).best_fusion([HYBRID], "dev") == Fusion()


def set_of(passages: dict[str, str], questions: dict[str, tuple[str, str]]) -> RetrievalSet:
    """Every question in dev and in test."""
    chunks = tuple(Chunk(id, f"doc-{id}", 0, len(t), "", t) for id, t in passages.items())
    qrels = {query: {chunk: 1} for query, (_, chunk) in questions.items()}
    queries = tuple(Query(id, text) for id, (text, _) in questions.items())
    return RetrievalSet("made", chunks, queries, {"dev": qrels, "test": qrels})


def test_one_weighting_is_chosen_for_all_hybrids_together():
    numbers = range(6)
    data = set_of(
        {f"c{n}": f"word{n} common" for n in numbers},
        {f"q{n}": (f"word{n} common", f"c{n}") for n in numbers},
    )

    class Shifted(HashingEmbedder):
        """Finds the passage (BM25 does too), or always another one."""

        def __init__(self, shift: int) -> None:
            super().__init__(6)
            self.name, self.shift = f"shifted-{shift}", shift

        def embed(self, texts, role):
            places = [int(text.split()[0][4:]) for text in texts]
            moved = [(place + self.shift * (role == "query")) % 6 for place in places]
            return np.eye(6, dtype=np.float32)[moved]

    right, wrong = parse_system("hybrid:hashing:1"), parse_system("hybrid:hashing:2")
    evaluator = Evaluator(data, embedder_of=lambda system: Shifted(int(system.model) - 1))
    assert evaluator.best_fusion([right]) == Fusion()  # all weights are as good: equal ones
    assert evaluator.best_fusion([wrong]).weight == 0.3
    assert evaluator.best_fusion([right, wrong]).weight == 0.3


@pytest.mark.parametrize("precision", ["float16", "int8", "binary", "binary+rescore"])
def test_a_quantised_system_ranks_as_its_index_does(small, precision):
    evaluator = Evaluator(small)
    system = parse_system(f"q=hashing?precision={precision}")
    scores = evaluator.score(system, "test")
    assert scores.facts["precision"] == precision
    assert scores.dims == {}
    ids, rows = evaluator.vectors(HASHING)
    asked = [query.text for query in evaluator.queries("test")]
    found = nearest(HashingEmbedder().embed(asked, "query"), quantise(rows, precision), ids, 6)
    for query, order in zip(evaluator.queries("test"), found.indices, strict=True):
        assert [chunk for chunk, _ in scores.rankings[query.id]] == [ids[row] for row in order]
    hybrid = evaluator.score(parse_system(f"hybrid:hashing?precision={precision}"), "test")
    assert hybrid.kind == "hybrid"


def test_as_much_is_rescored_as_an_index_asked_for_ten_would():
    passages = {f"c{n}": f"word{n} of {n % 7} and {n % 5}" for n in range(60)}
    data = set_of(passages, {"q": ("word3 of 3", "c3")})
    scores = Evaluator(data).score(parse_system("hashing?precision=binary+rescore"), "test")
    assert len(scores.rankings["q"]) == 40


def test_the_first_hits_are_read_again_by_a_reranker(small):
    chunks = {chunk.id: chunk.embedded for chunk in small.chunks}
    judged = {q: next(iter(grades)) for q, grades in small.qrels["test"].items()}
    table = {
        (query.text, chunks[judged[query.id]]): 1.0 for query in small.queries if query.id in judged
    }
    opened: list[str] = []

    def open_scripted(system):
        opened.append(system.model)
        return ScriptedReranker(table)

    evaluator = Evaluator(small, reranker_of=open_scripted)
    for text in ("a=hashing:2?rerank=ce", "b=hybrid:hashing:2?rerank=ce", "c=bm25?rerank=ce"):
        scores = evaluator.score(parse_system(text), "test")
        assert (scores.kind, scores.metrics["hit@1"]) == ("rerank", 1.0)
        assert (scores.facts["reranker"], scores.facts["depth"]) == ("scripted", 50)
        assert scores.dims == {}
    assert opened == ["ce"]
    one = evaluator.score(parse_system("bm25?rerank=ce&depth=1"), "test")
    assert all(len(ranking) == 1 for ranking in one.rankings.values())
    assert "fusion" in evaluator.score(parse_system("hybrid:hashing?rerank=ce"), "test").facts


def test_settings_choose_metric_similarity_and_dimension(small):
    settings = EvaluationSettings(metric="ndcg@20", similarity="dot", dimension=64)
    scores = Evaluator(small, settings).score(HASHING, "test")
    assert "ndcg@20" in scores.metrics
    assert scores.facts["similarity"] == "dot"
    assert scores.metrics == scores.dims[64]
    too_large = EvaluationSettings(dimension=512)
    with pytest.raises(ConfigError, match="512 is above the 256"):
        Evaluator(small, too_large).score(HASHING, "test")


def test_settings_are_checked_before_anything_runs():
    with pytest.raises(ValidationError, match="unknown metric 'ndgc@10'"):
        EvaluationSettings(metric="ndgc@10")
    with pytest.raises(ValidationError, match="expected hybrid:MODEL"):
        EvaluationSettings(rivals=["hybrid:"])
    settings = EvaluationSettings(rivals=["bm25", {"openai": "text-embedding-3-small"}])
    assert settings.rivals == ("bm25", "openai:text-embedding-3-small")
    settings = EvaluationSettings(rivals=[{"model": "m", "query_prompt": "q: ", "label": "x"}])
    assert settings.rivals == ("x=m?query_prompt=q:%20",)
    with pytest.raises(ValidationError, match="expected one of system, model"):
        EvaluationSettings(rivals=[{"model": "m", "polling": "cls"}])


def test_a_changing_embedder_is_scored_without_being_kept(small):
    embedder = Counting()
    evaluator = Evaluator(small)
    first = evaluator.score_embedder(embedder, "test")
    assert first == pytest.approx(evaluator.score(HASHING, "test").metrics["ndcg@10"])
    evaluator.score_embedder(embedder, "test")
    assert len(embedder.encoded) == 2 * (6 + 4)


def test_restricted_scores_are_means_over_the_chosen_queries(small):
    scores = Evaluator(small).score(BM25, "test")
    part = restricted(scores, ["q5", "q2"])
    expected = (scores.per_query["ndcg@10"]["q2"] + scores.per_query["ndcg@10"]["q5"]) / 2
    assert part.metrics["ndcg@10"] == pytest.approx(expected)
    assert set(part.rankings) == {"q2", "q5"}


def read_beir(name: str) -> RetrievalSet:
    folder = SHARED / name

    def rows(file: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (folder / file).open(encoding="utf-8")]

    qrels = {}
    for split in ("dev", "test"):
        lines = (folder / "qrels" / f"{split}.tsv").read_text("utf-8").splitlines()[1:]
        qrels[split] = {}
        for query, chunk, grade in (line.split("\t") for line in lines):
            qrels[split].setdefault(query, {})[chunk] = int(grade)
    return RetrievalSet(
        name,
        tuple(Chunk(r["_id"], r["_id"], 0, 0, r["title"], r["text"]) for r in rows("corpus.jsonl")),
        tuple(Query(r["_id"], r["text"]) for r in rows("queries.jsonl")),
        qrels,
    )


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "expected"),
    [("medquad", 0.54), ("nvidia_10k", 0.70), ("onet_jobs", 0.48), ("securities_law", 0.78)],
)
def test_bm25_of_whole_words_reaches_the_published_figures(monkeypatch, name: str, expected: float):
    monkeypatch.setattr(bm25, "terms", bm25.words)  # they are of words without stemming
    data = read_beir(name)
    scores = Evaluator(data).score(BM25, "test")
    assert scores.metrics["ndcg@10"] == pytest.approx(expected, abs=0.02)
    # and the metric code agrees with itself on the raw ranking
    judged = data.qrels["test"]
    raw = score([[c for c, _ in scores.rankings[q]] for q in judged], list(judged.values()))
    assert float(raw["ndcg@10"].mean()) == pytest.approx(scores.metrics["ndcg@10"], abs=0.005)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "gain"), [("medquad", 0), ("nvidia_10k", 0.01), ("onet_jobs", 0.05)]
)
def test_stems_make_bm25_find_more(monkeypatch, name: str, gain: float):
    data = read_beir(name)
    stems = Evaluator(data).score(BM25, "test").metrics["ndcg@10"]
    monkeypatch.setattr(bm25, "terms", bm25.words)
    assert stems >= Evaluator(data).score(BM25, "test").metrics["ndcg@10"] + gain
