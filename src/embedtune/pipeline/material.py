"""What a training learns from: the sets of examples that a data set, and further ones, give."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from embedtune.config import RunSettings
from embedtune.datasets.formats import LabelledRow, PairRow, Row, ScoredRow
from embedtune.datasets.judging import query_id
from embedtune.datasets.source import Source
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.evaluation.measures import similarities_of_rows
from embedtune.evaluation.settings import EvaluationSettings
from embedtune.files import visible
from embedtune.records import Pair, RetrievalSet, content_id
from embedtune.relevance import Relevance, merge_qrels
from embedtune.similar import normalise
from embedtune.training.builders import Teacher
from embedtune.training.examples import Examples, from_labelled, from_pairs, from_scored
from embedtune.training.losses import LOSSES, RANKED, check_loss
from embedtune.training.plan import TrainingSettings


def training_pairs(
    data: RetrievalSet,
    left_out: Iterable[str] = (),
    left_out_pairs: Iterable[tuple[str, str]] = (),
    *,
    seed: int = 0,
) -> list[Pair]:
    """One pair for each relevant chunk of each train query, but for those left out.

    Of labelled texts, each of which has hundreds, one is drawn for each.

    Args:
        left_out: Train queries that are too close to dev or test.
        left_out_pairs: (query, chunk) likewise.
    """
    if data.shared_passages:
        from embedtune.datasets.convert import draw_pairs

        return draw_pairs(data, left_out, per_query=1, seed=seed)
    barred, barred_pairs = set(left_out), set(left_out_pairs)
    chunks = {chunk.id: chunk for chunk in data.chunks}
    return [
        Pair(query.id, chunk_id, query.text, chunks[chunk_id].embedded)
        for query in data.queries_of("train")
        if query.id not in barred
        for chunk_id, grade in data.qrels["train"][query.id].items()
        if grade > 0 and (query.id, chunk_id) not in barred_pairs
    ]


def own_examples(
    rows: Sequence[Row], pairs: Sequence[Pair], training: TrainingSettings
) -> Examples:
    """The train rows as they came, where a loss for their format trains them; else ``pairs``.

    Scored pairs and labelled texts are learnt as such, unless ``training.loss`` names a loss for
    pairs: then from the pairs that their judgements give.
    """
    if rows and not isinstance(rows[0], PairRow):
        own = examples_of("train", rows)
        fits = RANKED if training.loss == "auto" else LOSSES[training.loss].formats
        if training.loss == "auto" or own.format in fits or not set(fits) & set(RANKED):
            return own
    return from_pairs("train", pairs)


def check_fits(rows: Sequence[Row], training: TrainingSettings, *, negatives: bool) -> None:
    """Refuse a loss that the data will not fit, before anything is done with a model.

    Args:
        rows: The train rows as they came, none of a BEIR folder.
        negatives: Whether the pairs will have some.

    Raises:
        ConfigError: It does not fit; names the losses that do.
    """
    if training.loss != "auto":
        own = own_examples(rows, (), training)
        format = "triplets" if own.format == "pairs" and negatives else own.format
        check_loss(training.loss, format, own.labels)


def examples_of(name: str, rows: Sequence[Row]) -> Examples:
    """Rows of one format. Pairs get ids by their texts, so that equal texts are no negatives."""
    if isinstance(rows[0], ScoredRow):
        scored = [row for row in rows if isinstance(row, ScoredRow)]
        return from_scored(name, ((row.sentence1, row.sentence2, row.score) for row in scored))
    if isinstance(rows[0], LabelledRow):
        labelled = [row for row in rows if isinstance(row, LabelledRow)]
        return from_labelled(name, ((row.text, row.label) for row in labelled))
    pairs = [
        Pair(
            content_id("q", row.anchor),
            content_id("c", row.positive),
            row.anchor,
            row.positive,
            tuple((content_id("c", text), text) for text in row.negatives),
        )
        for row in rows
        if isinstance(row, PairRow)
    ]
    return from_pairs(name, pairs)


@dataclass(frozen=True, slots=True)
class FurtherSet:
    """A data set of ``training.also``: what of it is trained on. No other has its ids."""

    examples: Examples
    answers: Mapping[str, frozenset[str]]  # query id -> chunks that are no negatives for it
    left_out: int = 0  # rows too close to dev or test of the main data
    note: str = ""  # what to say of those

    def facts(self) -> dict[str, Any]:
        """What a manifest keeps of it."""
        return {"data": self.examples.name, "rows": len(self.examples), "left_out": self.left_out,
                "note": self.note}  # fmt: skip


def further_examples(
    settings: RunSettings, data: RetrievalSet, examples: Mapping[str, Sequence[Row]]
) -> list[FurtherSet]:
    """The train rows of each data set of ``training.also``, but for those that are too close to
    dev or test of the main one (see ``leave_out_held``).

    Args:
        data: The main data set.
        examples: Its rows by split, where it is no BEIR folder.

    Raises:
        NothingUsable: A data set without train rows, or with none but such.
        IntegrityError: Rows that stand in dev or test of the main data.
    """
    if not settings.training.also:
        return []
    from embedtune.datasets.held_out import held_out, leave_out_held
    from embedtune.datasets.source import read_source

    held = held_out(data, examples)
    found = []
    for number, where in enumerate(settings.training.also, 1):
        source = read_source(where, settings=settings.source)
        rows = _train_rows(source)
        if not rows:
            raise NothingUsable(f"training.also: {where}: no rows to train on")
        kept, note = leave_out_held(rows, held, f"training.also: {where}")
        own, answers = _marked(source, kept, number)
        found.append(FurtherSet(own, answers, len(rows) - len(kept), note))
    return found


def _train_rows(source: Source) -> Sequence[Pair | Row]:
    if source.format == "beir":
        return training_pairs(source.data) if "train" in source.data.qrels else ()
    return source.examples.get("train") or source.examples.get("all") or ()


def _marked(
    source: Source, rows: Sequence[Pair | Row], number: int
) -> tuple[Examples, dict[str, frozenset[str]]]:
    """Rows as examples with ids of their own, and the chunks that answer each of their queries:
    by the judgements of all splits, whatever case or id texts stand there with."""
    name = f"{source.data.name} ({number})"
    pairs = [row for row in rows if isinstance(row, Pair)]
    own = from_pairs(name, pairs) if pairs else examples_of(
        name, [row for row in rows if not isinstance(row, Pair)]
    )  # fmt: skip
    if not own.pairs:
        return own, {}

    def mark(id: str) -> str:
        return f"{number}\x1f{id}"

    chunks = source.data.chunks
    first: dict[str, int] = {}
    copies = [
        (one, place)
        for place, chunk in enumerate(chunks)
        if (one := first.setdefault(normalise(chunk.embedded), place)) != place
    ]
    judged = merge_qrels(source.data.qrels.values())
    relevance = Relevance(source.data.queries, chunks, judged, copies)
    answers = {
        mark(pair.query): frozenset(
            map(mark, relevance.excluded(pair.query if pairs else query_id(pair.anchor)))
        )
        for pair in own.pairs
    }
    marked = tuple(
        replace(
            pair,
            query=mark(pair.query),
            chunk=mark(pair.chunk),
            negatives=tuple((mark(chunk), text) for chunk, text in pair.negatives),
        )
        for pair in own.pairs
    )
    return replace(own, pairs=marked), answers


def further_digest(further: Sequence[FurtherSet]) -> dict[str, str]:
    """What a training depends on of further data sets, as an entry of a recipe; none without."""
    if not further:
        return {}
    seen = [(part.examples, sorted((q, sorted(own)) for q, own in part.answers.items()))
            for part in further]  # fmt: skip
    return {"also": content_id("t", *seen)}


def order_of_scores(
    rows: Sequence[ScoredRow], evaluation: EvaluationSettings | None = None
) -> Callable[[Any], float]:
    """A score for models: Spearman's correlation of their similarities with the scores of
    ``rows``, at the similarity (auto: cosine) and dimension of the settings."""
    import numpy as np
    from scipy.stats import spearmanr

    from embedtune.embed.local import MemoryEmbedder

    settings = evaluation or EvaluationSettings()
    similarity = "cosine" if settings.similarity == "auto" else settings.similarity
    width = None if settings.dimension == "full" else settings.dimension
    scores = [row.score for row in rows]

    def score(model: Any) -> float:
        embedder = MemoryEmbedder(model, "in training")
        one = embedder.embed([row.sentence1 for row in rows], "query")
        other = embedder.embed([row.sentence2 for row in rows], "document")
        alike = similarities_of_rows(one[:, :width], other[:, :width])[similarity]
        found = float(spearmanr(alike, scores).statistic)
        return found if np.isfinite(found) else 0.0

    return score


def check_helpers(training: TrainingSettings) -> None:
    """A guide and a teacher that are there and are what they should be; nothing is loaded.

    Raises:
        ConfigError: All faults found.
        ServiceError: A name that is nowhere here, and the hub cannot be reached.
    """
    from embedtune.embed.checks import check_model_folder
    from embedtune.embed.cross_encoder import find_cross_encoder
    from embedtune.embed.models import resolve_model

    faults: list[str] = []
    if training.guide:
        try:
            found = resolve_model(training.guide)
            check_model_folder(found.path, modules_required=not found.source.startswith("hub"))
        except ConfigError as error:
            faults += [f"training.guide: {fault}" for fault in error.faults]
    if training.teacher:
        try:
            find_cross_encoder(training.teacher, "training.teacher")
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)


def labels_of_helpers(training: TrainingSettings) -> dict[str, str]:
    """What a fingerprint says of guide and teacher, where there are any."""
    from embedtune.embed.models import resolve_model

    named = {"guide": training.guide, "teacher": training.teacher}
    return {helper: resolve_model(name).label for helper, name in named.items() if name}


def open_teacher(training: TrainingSettings, device: str) -> Teacher | None:
    """The cross-encoder that teaches the chosen loss, None where it needs none.

    Scores are the model's own numbers, before any sigmoid. A query and a passage are judged once,
    however many trainings ask for them.

    Raises:
        ConfigError, ServiceError: It cannot be loaded.
        IntegrityError (when asked): A score is not finite.
    """
    name = training.teacher
    if name is None or training.loss == "auto" or LOSSES[training.loss].needs != "teacher":
        return None
    import numpy as np
    import torch

    from embedtune.datasets.cross_encoder import BATCH
    from embedtune.embed.cross_encoder import load_cross_encoder

    model = load_cross_encoder(name, device, "training.teacher")
    known: dict[tuple[str, str], float] = {}

    def scores(queries: Sequence[str], passages: Sequence[str]) -> list[float]:
        asked = list(zip(queries, passages, strict=True))
        if new := [pair for pair in dict.fromkeys(asked) if pair not in known]:
            found = model.predict(
                new, batch_size=BATCH, show_progress_bar=False, activation_fn=torch.nn.Identity()
            )
            found = np.asarray(found, np.float64)
            if not np.isfinite(found).all():
                raise IntegrityError(
                    f"training.teacher: {visible(name)} gives NaN or infinite scores"
                )
            known.update(zip(new, found.tolist(), strict=True))
        return [known[pair] for pair in asked]

    return scores
