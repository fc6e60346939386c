"""A small run made by hand: six passages and eight questions in two languages."""

import json
from dataclasses import replace

import pytest

from embedtune.evidence import (
    CompressedIndex,
    CompressionGrid,
    Evidence,
    Layout,
    MapPoint,
    ScoreAdvice,
    ScoreSpread,
    Share,
    SpaceMap,
    Threshold,
    ThresholdAdvice,
)
from embedtune.records import Chunk, Counts, Query, Reject, Span
from embedtune.report import (
    BaseFacts,
    CauseFacts,
    MergeFacts,
    ProbeFacts,
    ReportFacts,
    SplitFacts,
    TrainingFacts,
    TrialFacts,
)
from embedtune.results import (
    Breakdown,
    Changes,
    CodeCount,
    Difference,
    Flag,
    HardQuery,
    Look,
    Part,
    Power,
    RankChange,
    SystemScores,
    Verdict,
)

PASSAGES = [
    ("c1", "en", "Frost stop", "When soil falls below minus two degrees the drover halts the herd. "
     "It resumes only after two readings an hour apart."),
    ("c2", "en", "Charging", "The marrow battery is charged at 0.2 C below five degrees.\n\n"
     "| state | current |\n|---|---|\n| cold | 0.2 C |\n| warm | 1 C |"),
    ("c3", "en", "Leave", "Night work earns an allowance of 18 percent, paid with the next month."),
    ("c4", "zh", "发票", "试验费发票须在三十日内提交，逾期由部门负责人审批。\n\n"
     "电子发票请上传原件。"),
    ("c5", "zh", "陷泥脱困", "机器陷入泥中时，先断开主电源，再用两块垫板从后轮一侧脱困。"),
    ("c6", "en", "Radio", "Wattle nodes repeat every packet twice on 868 MHz. " * 30),
]  # fmt: skip
QUESTIONS = [
    ("q1", "en", "question", "when does the herd stop in the cold?", "c1"),
    ("q2", "en", "keywords", "marrow cold charging current", "c2"),
    ("q3", "en", "question", "How much extra do I get for night shifts?", "c3"),
    ("q4", "zh", "question", "发票多久之内要交？", "c4"),
    ("q5", "zh", "colloquial", "机器陷泥里了怎么办？", "c5"),
    ("q6", "en", "question", "which frequency do the nodes use?", "c6"),
    ("q7", "zh", "keywords", "电子发票 原件", "c4"),
    ("q8", "en", "colloquial", "can it start again right after a frost stop?", "c1"),
]
# rank of the right passage in each system's list; 0: not found
RANKS = {
    "base": [2, 1, 4, 0, 6, 1, 3, 2],
    "tuned": [1, 1, 1, 2, 1, 3, 1, 2],
    "bm25": [3, 1, 0, 1, 0, 1, 1, 0],
}
GAIN = {0: 0.0, 1: 1.0, 2: 0.6309, 3: 0.5, 4: 0.4307, 5: 0.3869, 6: 0.3562}  # 1 / log2(rank + 1)

CHUNKS = tuple(
    Chunk(id=name, document=f"d-{name}", start=100, end=100 + len(text), title=title, text=text,
          section=("Handbook", title), language=language, source=f"handbook/{name}.md")
    for name, language, title, text in PASSAGES
)  # fmt: skip
QUERIES = tuple(
    Query(id=name, text=text, language=language, style=style, origin="llm", document=f"d-{chunk}",
          chunk=chunk, evidence=Span(f"d-{chunk}", 105, 140))
    for name, language, style, text, chunk in QUESTIONS
)  # fmt: skip
QRELS = {name: {chunk: 1} for name, _, _, _, chunk in QUESTIONS}
REJECTS = (
    Reject("read", "empty-file", "the file is empty", file="inbox/leer.txt"),
    Reject("generate", "no-quote", "the quote is not in the passage", item="c2", excerpt="as if",
           unusable=False),
)  # fmt: skip


def system(name, kind, ranks, *, lift=0.0):
    per_query = {metric: {} for metric in ("ndcg@10", "hit@1", "hit@5", "recall@10", "mrr@10")}
    rankings = {}
    for (query, _, _, _, right), rank in zip(QUESTIONS, ranks, strict=True):
        others = [chunk.id for chunk in CHUNKS if chunk.id != right]
        order = [*others[: rank - 1], right, *others[rank - 1 :]] if rank else others
        rankings[query] = tuple((chunk, 1.0 - place / 10) for place, chunk in enumerate(order))
        per_query["ndcg@10"][query] = GAIN[rank]
        per_query["hit@1"][query] = float(rank == 1)
        per_query["hit@5"][query] = float(0 < rank <= 5)
        per_query["recall@10"][query] = float(rank > 0)
        per_query["mrr@10"][query] = 1 / rank if rank else 0.0
    metrics = {name: sum(values.values()) / 8 for name, values in per_query.items()}
    dims = (
        {size: {"ndcg@10": metrics["ndcg@10"] - loss} for size, loss in
         ((384, 0), (256, 0.004 - lift), (128, 0.02 - lift), (64, 0.09 - lift))}
        if kind == "dense" else {}
    )  # fmt: skip
    intervals = {name: (max(0, mean - 0.11), min(1, mean + 0.1)) for name, mean in metrics.items()}
    return SystemScores(name, kind, metrics, per_query, rankings, dims, intervals)


BASE = system("all-MiniLM-L6-v2", "dense", RANKS["base"])
TUNED = system("runs/handbook/train/model", "dense", RANKS["tuned"], lift=0.012)
BM25 = system("bm25", "bm25", RANKS["bm25"])
HYBRID = system("hybrid:runs/handbook/train/model", "hybrid", [1, 1, 2, 1, 2, 1, 1, 2])

VERDICT = Verdict(
    verdict="ship",
    reasons=(
        "The interval over the base lies above zero: +0.142 to +0.409.",
        "The mean gain of 0.276 is over the 0.01 asked for.",
        "The general probe lost 0.004, within the gate.",
    ),
    candidate=TUNED.name,
    base=BASE.name,
    best_rival="bm25",
    differences={
        "base": Difference(0.276, 0.142, 0.409, 0.0004, 0.0008, 8, 6),
        "best_rival": Difference(0.281, -0.021, 0.5, 0.07, 0.07, 8, 6),
        HYBRID.name: Difference(-0.031, -0.2, 0.13, 0.61, None, 8, 6),
    },
    power=Power(0.06, 0.2, 0.276, 8, 30),
    flags=(Flag("copied-queries", "12 % of the questions copy their passage", False),
           Flag("unknown-tokens", "42 % of the tokens are unknown to the tokenizer", False, "zh")),
)  # fmt: skip

# how the 8 questions fare by language; too few for an interval
BREAKDOWNS = (
    Breakdown(
        "language",
        (Part("en", 5, 4, 0.7393, 0.8262, 0.0868, -0.01, 0.2, 2, 1),
         Part("zh", 3, 2, 0.2854, 0.877, 0.5916, None, None, 3, 0)),
    ),
    Breakdown(
        "document",
        (Part("handbook/c1.md", 2, 1, 0.6309, 0.8155, 0.1846, None, None, 1, 0),
         Part("handbook/c4.md", 2, 1, 0.25, 0.8155, 0.5655, None, None, 2, 0)),
        Part("", 4, 4, 0.6967, 0.875, 0.1783, None, None, 2, 1),
        4,
    ),
)  # fmt: skip


def look(query, passage, shared, terms, codes=()):
    return Look(query, passage, shared, terms, 0, 9, 0, 20, 256, codes)


CHANGES = Changes(
    gained=5, lost=1, same=2,
    most_gained=(
        RankChange(look("q5", "c5", ("机器", "泥"), 5, ("unknown-query",)), 0.3562, 1.0, 6, 1,
                   "c1", ("机器",)),
        RankChange(look("q4", "c4", (), 4, ("no-shared-term",)), 0.0, 0.6309, None, 2),
    ),
    most_lost=(
        RankChange(look("q6", "c6", ("nodes",), 3, ("cut", "answer-cut")), 1.0, 0.5, 1, 3, "c3"),
    ),
    hardest=(
        HardQuery(look("q8", "c1", ("frost", "stop"), 7, ("several-right",)), 0.6309, 0.4732,
                  {"base": 2, "tuned": 2, "bm25": None}),
    ),
    unfound=0,
    codes=(CodeCount("no-shared-term", 1, 0, 0), CodeCount("cut", 0, 1, 0)),
)  # fmt: skip


def index(dimension, precision, memory, score, low, high):
    return CompressedIndex(dimension, precision, memory, memory, score, score - 0.845, low, high,
                           0.2)  # fmt: skip


EVIDENCE = Evidence(
    compression=CompressionGrid(
        system="tuned", metric="ndcg@10", split="test", queries=8, groups=6, rows=1234,
        indexes=(
            index(384, "float32", 1536, 0.845, 0.0, 0.0),
            index(384, "int8", 384, 0.844, -0.003, 0.001),
            index(384, "binary", 48, 0.79, -0.09, -0.02),
            index(128, "float32", 512, 0.839, -0.02, 0.01),
            index(128, "int8", 128, 0.838, -0.018, 0.01),
            index(128, "binary", 16, 0.6, -0.4, -0.1),
        ),
        recommended=4, judged_on=("dev", "test"), rescoring_counts=False, loss=0.01, margin=0.02,
    ),
    map=SpaceMap(
        method="tsne", notice="", neighbours=2,
        points=(
            *(MapPoint(chunk.id, "chunk", chunk.source, chunk.title) for chunk in CHUNKS),
            *(MapPoint(query.id, "query", f"handbook/{query.chunk}.md", query.text)
              for query in QUERIES),
        ),
        colours=tuple(f"handbook/c{number}.md" for number in (1, 4, 2, 3, 5, 6)),
        layouts=tuple(
            Layout(name, tuple((number * shift % 7, number * number % 5) for number in range(14)),
                   trust, 0.71, silhouette)
            for name, shift, trust, silhouette in (("base", 3.0, 0.93, None),
                                                   ("tuned", 2.0, 0.95, 0.31))
        ),
        kept=0.42, chunks=6, queries=8,
    ),
    scores=ScoreAdvice(
        edges=(0.0, 0.25, 0.5, 0.75, 1.0),
        spreads=(ScoreSpread("base", 8, (1, 3, 3, 1), (2, 4, 2, 0), 0.65),
                 ScoreSpread("tuned", 8, (0, 1, 2, 5), (3, 4, 1, 0), 0.91)),
        advice=(
            ThresholdAdvice(
                "no-answer", "tuned", "test", "", 70, 8,
                (Threshold(0.9, 0.97, 0.52, Share(0.875, 0.6, 1.0, 8), Share(0.75, 0.4, 0.95, 8),
                           Share(0.125, 0.0, 0.5, 8)),
                 Threshold(0.99, 0.97)),
            ),
            ThresholdAdvice("cache", "tuned", "test", "few-paraphrases", 3, 1),
        ),
    ),
)  # fmt: skip

FULL = ReportFacts(
    title="Field handbook 田间手册",
    created="2025-03-01 10:20 UTC",
    verdict=VERDICT,
    systems=(BASE, TUNED, BM25, HYBRID),
    chunks=CHUNKS,
    queries=QUERIES,
    qrels=QRELS,
    breakdowns=BREAKDOWNS,
    changes=CHANGES,
    evidence=EVIDENCE,
    causes=(CauseFacts(code="learning-rate", holds=True, number=0.3, limit=0.15),
            CauseFacts(code="epochs", holds=False, number=0.01, limit=0.03)),
    passages=1234,
    documents=52,
    counts={"read": Counts(54, 52, 1, 1), "chunk": Counts(240, 236, 4),
            "generate": Counts(610, 580, 22, 8)},
    rejects=REJECTS,
    split=SplitFacts(
        by="documents",
        groups={"train": 30, "dev": 8, "test": 6},
        queries={"train": 430, "dev": 70, "test": 8},
        moved=3,
        dropped={"the same text for more than one group": 2},
        notes=("Two documents were joined: they share a near-duplicate passage.",),
    ),
    training=TrainingFacts(
        history=[{"step": 0, "epoch": 0.0, "dev": 0.43},
                 *({"step": step, "loss": 2.4 / (1 + step / 25)} for step in range(10, 130, 10)),
                 {"step": 40, "dev": 0.56}, {"step": 80, "dev": 0.63}, {"step": 120, "dev": 0.618}],
        best_step=80, best_score=0.63, base_score=0.43, alpha=0.8, pairs=430, seconds=151.6,
        curve=[MergeFacts(alpha=alpha, dev=dev, loss=loss, holds=loss <= 0.01, chosen=alpha == 0.8)
               for alpha, dev, loss in ((0.0, 0.43, 0.0), (0.2, 0.5, -0.002), (0.4, 0.56, 0.0),
                                        (0.6, 0.6, 0.002), (0.8, 0.63, 0.006), (1.0, 0.64, 0.021))],
        bases=[BaseFacts(name="all-MiniLM-L6-v2", score=0.62, low=0.55, high=0.69,
                         parameters=22_713_216, licence="apache-2.0", chosen=True),
               BaseFacts(name="other-base", score=0.2, low=0.1, high=0.3, unreadable=0.41),
               BaseFacts(name="gone-base")],
        trials=[TrialFacts(recipe={"learning_rate": 5e-5, "epochs": 2.0}, rung=1, queries=70,
                           score=0.63, alpha=0.8, seconds=40.0, chosen=True),
                TrialFacts(recipe={"learning_rate": 2e-4, "epochs": 2.0}, rung=0, queries=70,
                           score=0.6, alpha=0.6, seconds=20.0)],
        settings={"batch_size": 32, "learning_rate": 2e-5, "epochs": 2},
    ),
    probes=(ProbeFacts(name="general, English", queries=312, before=0.712, after=0.708, low=-0.011,
                       high=0.003, held=True, cosine=0.93, cka=0.98, overlap=0.81),
            ProbeFacts(name="general, Chinese", queries=300, before=0.08, after=0.1, counts=False)),
    notes=("3 PDF pages have no text; no OCR engine is installed.",),
    model="runs/handbook/train/model",
    base_model="sentence-transformers/all-MiniLM-L6-v2",
    command="embedtune run -c embedtune.yaml",
    settings="documents:\n  paths: [docs/]\nchunks: {tokens: 256}\n",
    versions={"embedtune": "0.1.0", "torch": "2.13.0", "sentence-transformers": "6.2.0"},
    seeds={"split": 42, "training": 42},
    fingerprints={"read": "5c1f0f0ad2", "train": "b7710c55e0"},
)  # fmt: skip


@pytest.fixture(scope="package", autouse=True)
def drawn_charts():
    """Each chart is drawn once: pages of one run differ in a few, and drawing takes most of their
    time. Gives what is drawn."""
    import vl_convert

    draw, drawn = vl_convert.vegalite_to_svg, {}

    def once(spec, **named):
        key = json.dumps([spec, named], sort_keys=True)
        if key not in drawn:
            drawn[key] = draw(spec, **named)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vl_convert, "vegalite_to_svg", once)
        yield drawn


@pytest.fixture(scope="session")
def full() -> ReportFacts:
    """A whole run with everything in it."""
    return FULL


@pytest.fixture
def concluded():
    """The same run with another verdict: ``concluded("ship-hybrid", flags=…)``."""

    def conclude(name, **changes):
        return replace(FULL, verdict=replace(VERDICT, verdict=name, **changes))

    return conclude


HOSTILE = (
    "<script>window.canary=1</script>",
    "<img src=x onerror=window.canary=1>",
    "</script><script>window.canary=1</script>",
    "</style></svg><svg onload=window.canary=1>",
    "\"'><a href=javascript:window.canary=1>x</a>",
    "{{7*7}}{% raw %}${7*7}",
    "]]>--><iframe src=https://example.org/></iframe>",
    "abc\u202egnp.exe\u200b\u2066\x1b[31m\x00\x07\ud800\ufeff",
    "| a | `b` [c](https://example.org/) **d**: - &lt; \r\n---\nx: !!python/object y",
)


def _evil_look(own, evil):
    return replace(own, shared=(evil,), codes=(evil,))


def _evil_change(change, evil):
    return replace(change, look=_evil_look(change.look, evil), other_shared=(evil,))


def _evil_evidence(evil):
    space, scores = EVIDENCE.map, EVIDENCE.scores
    return replace(
        EVIDENCE,
        compression=replace(EVIDENCE.compression, system=evil, metric=evil, split=evil),
        map=replace(
            space,
            points=tuple(
                replace(point, hover=evil[:120], colour=f"{evil}{point.colour}")
                for point in space.points
            ),
            colours=tuple(f"{evil}{colour}" for colour in space.colours),
            layouts=tuple(replace(layout, system=evil) for layout in space.layouts),
        ),
        scores=replace(
            scores,
            spreads=tuple(replace(spread, system=evil) for spread in scores.spreads),
            advice=tuple(replace(advice, system=evil, split=evil) for advice in scores.advice),
        ),
    )


@pytest.fixture(scope="session")
def hostile() -> ReportFacts:
    """The same run, with every text of it hostile."""
    return poison(" ".join(HOSTILE))


@pytest.fixture(scope="session")
def poisoned():
    """The same run with a text of your own in every place: ``poisoned(text)``."""
    return poison


def poison(evil: str) -> ReportFacts:
    rename = {system.name: f"{evil} {number}" for number, system in enumerate(FULL.systems)}
    relang = {"en": "en", "zh": f"zh{evil}"}
    return replace(
        FULL,
        title=evil,
        created=evil,
        verdict=replace(
            VERDICT,
            reasons=(evil,),
            candidate=rename[VERDICT.candidate],
            base=rename[VERDICT.base],
            best_rival=rename[VERDICT.best_rival],
            differences={
                rename.get(name, name): difference
                for name, difference in VERDICT.differences.items()
            },
            flags=(Flag(evil, evil, True, evil),),
        ),
        systems=tuple(replace(found, name=rename[found.name]) for found in FULL.systems),
        chunks=tuple(
            replace(chunk, title=evil, text=evil + chunk.text, source=evil, section=(evil,), page=3,
                    language=relang[chunk.language])
            for chunk in CHUNKS
        ),
        queries=tuple(
            replace(query, text=f"{evil} {query.text}", style=f"{query.style} {evil}",
                    language=relang[query.language])
            for query in QUERIES
        ),
        breakdowns=tuple(
            replace(own, by=by, parts=tuple(replace(part, name=evil) for part in own.parts))
            for own, by in zip(BREAKDOWNS, (evil, "document"), strict=True)
        ),
        changes=replace(
            CHANGES,
            most_gained=tuple(_evil_change(change, evil) for change in CHANGES.most_gained),
            most_lost=tuple(_evil_change(change, evil) for change in CHANGES.most_lost),
            hardest=tuple(
                replace(hard, look=_evil_look(hard.look, evil), ranks={evil: 3})
                for hard in CHANGES.hardest
            ),
            codes=(CodeCount(evil, 1, 1, 1),),
        ),
        evidence=_evil_evidence(evil),
        causes=(CauseFacts(code=evil, holds=True, number=1.0, limit=2.0),),
        split_name=evil,
        counts={evil: Counts(1, 1)},
        rejects=(Reject(evil, evil, evil, file=evil, line=3, field=evil, excerpt=evil, item=evil),),
        split=SplitFacts(by="documents", groups={evil: 1}, queries={evil: 2}, dropped={evil: 2},
                         optimistic=True, notes=(evil,)),
        training=replace(
            FULL.training,
            settings={evil: evil},
            metric=evil,
            trials=[replace(trial, recipe={evil: evil}) for trial in FULL.training.trials],
        ),
        probes=(ProbeFacts(name=evil, queries=3, before=0.5, after=0.5, held=False),),
        notes=(evil,),
        missing=(evil,),
        model=evil,
        base_model=evil,
        license=evil,
        command=evil,
        settings=evil,
        versions={evil: evil},
        fingerprints={evil: evil},
    )  # fmt: skip
