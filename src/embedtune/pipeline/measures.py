"""What can be measured on a data set, by its format: ranking, triplets, scores, labels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.datasets.formats import PairRow
from embedtune.embed import Matrix
from embedtune.errors import ConfigError
from embedtune.evaluation import metrics
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.measures import Measures
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.evaluation.systems import (
    System,
    open_reranker,
    parse_systems,
)
from embedtune.evaluation.tables import per_query_csv, systems_csv, trec_files
from embedtune.evaluation.trec import check_run, read_qrels, read_run
from embedtune.evaluation.triplets import measure_triplets
from embedtune.files import visible, write_text
from embedtune.pipeline.console import Console
from embedtune.pipeline.row_measures import (
    Figures,
    Opener,
    by_dimension,
    measure_rows,
    rows_of,
    vectors_of,
)
from embedtune.records import Reject, RetrievalSet, unusable
from embedtune.results import SystemScores
from embedtune.retrieve.rerank import Reranker
from embedtune.similar import near_duplicates

TABLE = "systems.csv"
ROWS = {"scored": "scored pairs", "labelled": "labelled texts"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Systems side by side on one split. ``measures`` are figures that need no ranking; a system
    has scores, measures, or both."""

    split: str
    format: str
    labels: tuple[str, ...]  # of all systems, in the order they were named
    systems: tuple[SystemScores, ...]
    measures: tuple[Measures, ...]
    unusable: bool
    judgements: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    counted: Mapping[str, frozenset[str]] = field(default_factory=dict)  # with near-duplicates
    depth: int = 10  # of the figure that decides

    @property
    def queries(self) -> int:
        return len(self.judgements)

    def as_json(self) -> dict[str, Any]:
        """``systems`` is the list that every command prints, with all figures of a system."""
        parts: dict[str, list[dict[str, Any]]] = {label: [] for label in self.labels}
        for own in (*self.systems, *self.measures):
            parts[own.name].append(own.as_json())
        return {
            "split": self.split,
            "format": self.format,
            "queries": self.queries,
            "rows": max((own.n for own in self.measures), default=0),
            "systems": [_merged(label, own) for label, own in parts.items() if own],
        }

    def write(self, out: Path) -> None:
        """Leave tables and TREC's files in ``out``, in place of those of an earlier evaluation."""
        files = {TABLE: systems_csv(self.systems, self.measures)}
        if self.systems:
            files["per_query.csv"] = per_query_csv(self.systems, self.counted, self.depth)
            files |= trec_files(self.systems, self.judgements)
        for old in (*out.glob("runs/*.trec"), out / "per_query.csv", out / "qrels.trec"):
            old.unlink(missing_ok=True)
        for name, text in files.items():
            write_text(out / name, text)


def _merged(label: str, parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    dims: dict[str, dict[str, float]] = {}
    for part in parts:
        for dim, figures in part["dims"].items():
            dims.setdefault(dim, {}).update(figures)
    return {
        "name": label,
        "metrics": {name: value for part in parts for name, value in part["metrics"].items()},
        "dims": dims,
        "intervals": {name: ends for part in parts for name, ends in part["intervals"].items()},
    }


def check_out(out: Path) -> None:
    """Refuse to mix the files of an evaluation with others.

    Raises:
        ConfigError: Something else is there.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / TABLE).exists())):
        raise ConfigError(f"{out}: holds something else than an evaluation; name another folder")


def measure(
    data: Path,
    split: str,
    systems: Sequence[str],
    settings: RunSettings,
    console: Console,
    *,
    embedder_of: Opener,
    reranker_of: Callable[[System], Reranker] = open_reranker,
    runs: Sequence[str] = (),
    qrels: Path | None = None,
) -> Evaluation:
    """All that the format of ``data`` allows to measure on ``split``.

    Args:
        runs: Run files of TREC as further systems, ``[LABEL=]FILE``.
        qrels: Judgements of TREC in place of those of ``split``.

    Raises:
        ConfigError: No system is left, or what was asked for does not go with the format.
        NothingUsable: Nothing to measure on.
        IntegrityError: A run of other data; vectors or judgements that cannot be right.
    """
    from embedtune.datasets.source import read_source

    parsed = parse_systems(systems)
    files = parse_runs(runs, [system.label for system in parsed])
    if not parsed and not files:
        raise ConfigError("no system named: give bm25, a model, or --run FILE")
    reading = read_source(data, settings.columns, split=settings.split, settings=settings.source)
    rejects = list(reading.rejects)
    if reading.format in ROWS:
        if files or qrels:
            raise ConfigError(
                f"{data}: {ROWS[reading.format]}; --run and --qrels need passages to rank"
            )
        chosen, rest = _with_vectors(parsed)
        if rest:
            console.say(
                f"  left out: {', '.join(map(visible, rest))}; {ROWS[reading.format]} are measured "
                "by a model's own vectors"
            )
        if not chosen:
            raise ConfigError(
                f"{data}: no system is left: {ROWS[reading.format]} are measured by vectors; "
                "name a model"
            )
        rows, train, split = rows_of(reading.examples, split, reading.data.name)
        measures = measure_rows(chosen, rows, train, reading.data.name, settings.evaluation,
                             embedder_of, console)  # fmt: skip
        return Evaluation(split, reading.format, tuple(system.label for system in chosen), (),
                          measures, unusable(rejects))  # fmt: skip
    return _ranked(reading, split, parsed, files, qrels, settings.evaluation, embedder_of,
                   reranker_of, console, rejects)  # fmt: skip


def parse_runs(texts: Iterable[str], taken: Iterable[str]) -> dict[str, Path]:
    """Label -> run file of ``[LABEL=]FILE``; the label defaults to the file's name without type.

    Raises:
        ConfigError: No such file, or a label that is taken.
    """
    found: dict[str, Path] = {}
    labels, faults = set(taken), []
    for text in texts:
        label, equals, name = text.partition("=")
        if Path(text).is_file() or not equals:
            label, name = Path(text).stem, text
        if not label.strip() or not Path(name).is_file():
            faults.append(f"--run {visible(text)}: no such file; expected [LABEL=]FILE")
        elif label in labels:
            faults.append(f"--run {visible(text)}: two systems are called {visible(label)}; "
                          "write LABEL=FILE")  # fmt: skip
        labels.add(label)
        found[label] = Path(name)
    if faults:
        raise ConfigError(faults)
    return found


def _with_vectors(systems: Sequence[System]) -> tuple[list[System], list[str]]:
    """The systems that give a text a vector, as it is, and the labels of the others."""
    chosen = [
        system
        for system in systems
        if system.kind in ("dense", "api") and system.precision == "float32"
    ]
    return chosen, [system.label for system in systems if system not in chosen]


# ---- rankings, and triplets beside them


def _ranked(
    reading: Any,
    split: str,
    parsed: Sequence[System],
    files: Mapping[str, Path],
    qrels: Path | None,
    settings: EvaluationSettings,
    embedder_of: Opener,
    reranker_of: Callable[[System], Reranker],
    console: Console,
    rejects: list[Reject],
) -> Evaluation:
    from embedtune.datasets.parts import WHOLE

    data: RetrievalSet = reading.data
    if qrels is not None:
        judged = read_qrels(qrels, rejects)
        data = RetrievalSet(data.name, data.chunks, data.queries, {**data.qrels, split: judged},
                            data.given_splits, data.shared_passages)  # fmt: skip
    elif split not in data.qrels and list(data.qrels) == [WHOLE]:
        split = WHOLE
        console.say(f"  {data.name} has no splits: all of it is evaluated")
    found = {label: read_run(path, rejects) for label, path in files.items()}
    for label, run in found.items():
        check_run(run, data, str(files[label]))
    chunks = data.chunks
    texts = [] if data.shared_passages else [chunk.embedded for chunk in chunks]
    pairs = [(chunks[one].id, chunks[other].id) for one, other in near_duplicates(texts)]
    evaluator = Evaluator(
        data, settings, near_duplicates=pairs, embedder_of=embedder_of, reranker_of=reranker_of
    )
    judgements = evaluator.judgements(split)
    systems = [evaluator.score(system, split) for system in parsed]
    systems += [evaluator.score_rankings(label, run, split) for label, run in found.items()]
    _tell_cuts(found, evaluator, judgements, settings, console)
    copied, alike = (
        max(scores.facts[name] for scores in systems)
        for name in ("equal_texts", "near_duplicate_hits")
    )
    if copied:
        console.say(f"  {copied} passages repeat the text of another; they count as one")
    if alike:
        console.say(f"  up to {alike} hits are near-duplicates of a judged passage; they count")
    measures: tuple[Measures, ...] = ()
    if reading.format == "triplets":
        from embedtune.datasets.source import examples_by_split

        rows = examples_by_split(reading, data)[split]
        measures = measure_triplet_rows(rows, split, evaluator, parsed, settings, console)
    return Evaluation(
        split, reading.format, tuple(scores.name for scores in systems), tuple(systems), measures,
        unusable(rejects), judgements, _counted(judgements, pairs),
        metrics.deepest([settings.metric]),
    )  # fmt: skip


def _counted(
    judgements: Mapping[str, Mapping[str, int]], pairs: Iterable[tuple[str, str]]
) -> dict[str, frozenset[str]]:
    """Query id -> relevant passages and their near-duplicates."""
    twins: dict[str, set[str]] = {}
    for one, other in pairs:
        twins.setdefault(one, set()).add(other)
        twins.setdefault(other, set()).add(one)
    return {
        query: frozenset(grades).union(*(twins.get(chunk, ()) for chunk in grades))
        for query, grades in judgements.items()
    }


def _tell_cuts(
    runs: Mapping[str, Mapping[str, Sequence[tuple[str, float]]]],
    evaluator: Evaluator,
    judgements: Mapping[str, object],
    settings: EvaluationSettings,
    console: Console,
) -> None:
    """Say where a figure looks deeper than there is anything."""
    deepest = metrics.deepest(settings.metrics)
    if deepest > evaluator.corpus_size:
        console.say(f"  only {evaluator.corpus_size} different passages: a k above that is cut")
    for label, run in runs.items():
        longest = max(len(run.get(query, ())) for query in judgements)
        missing = sum(query not in run for query in judgements)
        if longest < min(deepest, evaluator.corpus_size):
            console.say(f"  {visible(label)} holds at most {longest} passages a query; what lies "
                        "deeper counts as not found")  # fmt: skip
        if missing:
            console.say(f"  {visible(label)} has no line for {missing} of {len(judgements)} "
                        "queries; they count as not found")  # fmt: skip


def measure_triplet_rows(
    examples: Iterable[Any],
    split: str,
    evaluator: Evaluator,
    parsed: Sequence[System],
    settings: EvaluationSettings,
    console: Console,
) -> tuple[Measures, ...]:
    """How often the positive is nearer than the negative, over the triplets of ``split``."""
    from embedtune.datasets.judging import chunk_id, query_id

    chosen, rest = _with_vectors(parsed)
    rows = [row for row in examples if isinstance(row, PairRow)]
    triplets = [
        (query_id(row.anchor), row.anchor, row.positive, negative)
        for row in rows
        for negative in row.negatives
    ]
    judged = evaluator.judgements(split)
    sound = [row for row in triplets if chunk_id(row[3]) not in judged.get(row[0], {})]
    if len(sound) < len(triplets):
        console.say(f"  {len(triplets) - len(sound)} negatives are a positive of the same question "
                    "elsewhere; their triplets are not counted")  # fmt: skip
    if not sound or not chosen:
        return ()
    if rest:
        console.say(
            f"  no triplet accuracy for {', '.join(map(visible, rest))}: it is measured by a "
            "model's own vectors"
        )
    group_of = evaluator.groups(split)
    groups = [group_of.get(query, query) for query, *_ in sound]
    measures = []
    for system in chosen:
        embedder = evaluator.embedder(system)
        parts = [
            vectors_of(embedder, [row[place] for row in sound], role)
            for place, role in ((1, "query"), (2, "document"), (3, "document"))
        ]

        def figures(dim: int, seed: int | None, parts: list[Matrix] = parts) -> Figures:
            return measure_triplets(*(part[:, :dim] for part in parts), groups, seed=seed)

        own = parts[0].shape[1]
        measures.append(by_dimension(system, embedder, own, figures, len(sound), groups, settings))
    return tuple(measures)
