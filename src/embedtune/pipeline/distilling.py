"""``embedtune distil``: a static model that imitates a transformer on a data set's passages."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embedtune.config import RunSettings
from embedtune.embed import Embedder
from embedtune.embed.checks import write_checksums
from embedtune.embed.local import LocalEmbedder, MemoryEmbedder
from embedtune.embed.models import resolve_model
from embedtune.embed.recorded import RecordedEmbedder
from embedtune.errors import ConfigError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.systems import parse_system
from embedtune.files import write_json
from embedtune.pipeline.console import Console
from embedtune.pipeline.stored import load_given
from embedtune.pipeline.tune import FACTS
from embedtune.pipeline.untrained import is_static
from embedtune.records import content_id, unusable
from embedtune.run import Recipe, build_folder
from embedtune.store import Store
from embedtune.training.static import StaticSettings
from embedtune.training.static_distil import distil_static

TIMED = 64  # passages whose encoding is timed
VECTORS = "vectors.sqlite"


@dataclass(frozen=True, slots=True)
class Measured:
    """One of the models: how good, how large, how fast on this machine."""

    dev: float | None  # None without a dev split
    bytes: int
    passages_per_second: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Distilled:
    """What ``embedtune distil`` tells."""

    model: Path
    metric: str
    teacher: Measured
    student: Measured
    bm25: float | None  # on dev: what a student has to beat to be worth anything
    unusable: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "model": str(self.model),
            "metric": self.metric,
            "teacher": self.teacher.as_json(),
            "student": self.student.as_json(),
            "bm25": self.bm25,
        }


def distil_into(
    model: str, data: Path, out: Path, settings: RunSettings, console: Console
) -> Distilled:
    """Leave in ``out`` a static model of the words of ``data``'s passages that imitates ``model``,
    and say what is lost and won by it.

    Only the passages are learnt from (transductive). Dev, if there is one, is measured. The
    teacher's vectors are kept until all is done: the same command after a kill goes on.

    Raises:
        ConfigError: There is no such ``model``.
        NothingUsable: The passages hold fewer than two words.
        IntegrityError: The model is damaged.
    """
    from embedtune.embed.checks import check_model_folder

    if is_static(model):
        raise ConfigError(
            f"distil: {model} is made of the passages themselves; name a transformer, by name or "
            "folder"
        )
    resolved = resolve_model(model)
    check_model_folder(resolved.path, modules_required=settings.model.pooling == "auto")
    given = load_given(data, settings.split, columns=settings.columns, settings=settings.source)
    evaluation = settings.evaluation
    static = StaticSettings(seed=settings.training.seed)
    chunks = given.data.chunks
    has_dev = bool(given.data.qrels.get("dev"))
    judged = given.data.qrels["dev"] if has_dev else {}
    recipe = Recipe(
        "distil",
        1,
        {
            "static": static.model_dump(mode="json"),
            "pooling": settings.model.pooling,
            "metric": evaluation.metric,
            "similarity": evaluation.similarity,
        },
        {"teacher": resolved.label},
        {"data": content_id(
            "d",
            [(chunk.id, chunk.embedded) for chunk in chunks],
            [(query.id, query.text) for query in given.data.queries if query.id in judged],
            sorted((query, sorted(grades.items())) for query, grades in judged.items()),
        )},
    )  # fmt: skip

    def build(folder: Path) -> dict[str, Any]:
        teacher = LocalEmbedder(
            model, device=settings.training.device, pooling=settings.model.pooling
        )
        evaluator = Evaluator(given.data, evaluation, near_duplicates=given.twins)

        def dev_of(embedder: Embedder) -> float | None:
            return evaluator.score_embedder(embedder, "dev") if has_dev else None

        passages = [chunk.embedded for chunk in chunks]
        report = console.progress(f"texts encoded by {model}")
        with Store(folder / VECTORS) as store:
            recorded = RecordedEmbedder(teacher, store, progress=report)
            student = distil_static(recorded, passages, static)
            taught = dev_of(recorded)
        for left in folder.iterdir():
            if left.is_file():
                left.unlink()
        student.save(str(folder), create_model_card=False)
        imitation = MemoryEmbedder(student, "student")
        sample = passages[:TIMED]
        bm25 = evaluator.score(parse_system("bm25"), "dev") if has_dev else None
        found = Distilled(
            out,
            evaluation.metric,
            Measured(taught, _weights(resolved.path), _speed(teacher, sample)),
            Measured(dev_of(imitation), _weights(folder), _speed(imitation, sample)),
            bm25.metrics[evaluation.metric] if bm25 else None,
        )
        write_json(
            folder / FACTS,
            {"distilled_from": model, "teacher": resolved.label, "transductive": True,
             "matryoshka_dims": [imitation.dimension]},
        )  # fmt: skip
        write_checksums(folder)
        return found.as_json()

    facts = build_folder(out, recipe, build).facts
    return Distilled(
        out,
        facts["metric"],
        Measured(**facts["teacher"]),
        Measured(**facts["student"]),
        facts["bm25"],
        unusable(given.rejects),
    )


def told(found: Distilled) -> str:
    """The outcome in words: quality, size and speed side by side."""
    lines = [f"{found.model}: a static model of {found.student.bytes / 1e6:.1f} MB"]
    for name, own in (("teacher", found.teacher), ("student", found.student)):
        dev = "" if own.dev is None else f"{found.metric} on dev {own.dev:.3f}, "
        lines.append(
            f"  {name}  {dev}{own.bytes / 1e6:.1f} MB, "
            f"{own.passages_per_second:,.0f} passages a second"
        )
    if found.bm25 is not None:
        lines.append(f"  BM25     {found.metric} on dev {found.bm25:.3f}")
        if found.student.dev is not None and found.student.dev <= found.bm25:
            lines.append("  the student is no better than BM25, which needs no model")
    else:
        lines.append("  no dev split: what is lost is not known")
    return "\n".join(lines)


def _weights(folder: Path) -> int:
    """Bytes of a model folder's weights."""
    kinds = (".safetensors", ".bin")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in kinds)


def _speed(embedder: Embedder, passages: list[str]) -> float:
    """Passages a second on this machine; the first call, which loads and warms, is not counted."""
    embed: Callable[..., Any] = embedder.embed
    embed(passages[:1], "document")
    begin = time.perf_counter()
    embed(passages, "document")
    return round(len(set(passages)) / max(1e-9, time.perf_counter() - begin), 1)
