"""``embedtune export``: a model as a graph, checked against the model it was made from."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from embedtune.config import RunSettings
from embedtune.embed import Embedder
from embedtune.embed.checks import EXPORTED, read_json_object, write_checksums
from embedtune.embed.local import LocalEmbedder
from embedtune.embed.onnx import Checked, Exported, GraphPrecision, OnnxEmbedder, has_bf16
from embedtune.embed.recorded import RecordedEmbedder
from embedtune.errors import ConfigError
from embedtune.evaluation.evaluate import Evaluator
from embedtune.evaluation.forgetting import LANGUAGES, bundled_probe
from embedtune.export.check import OnData, hard_texts, judge_export
from embedtune.export.onnx import (
    ONNX,
    OPENVINO,
    describe,
    export_onnx,
    quantise,
    save_tokenizer,
    to_openvino,
)
from embedtune.files import visible, write_json
from embedtune.pipeline.console import Console
from embedtune.pipeline.stored import DATASET, Dataset, load_dataset, load_given
from embedtune.pipeline.tune import FACTS
from embedtune.records import Role, content_id, unusable
from embedtune.retrieve.order import tie_breaker
from embedtune.run import Recipe, build_folder, versions
from embedtune.store import Store

Form = Literal["onnx", "onnx-int8", "openvino"]
FORMS = get_args(Form)
PROBED = 60  # passages and as many questions of each language, where there is no data
VECTORS = "vectors.sqlite"
COPIED = (FACTS, "config_sentence_transformers.json")
LIBRARIES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino")


@dataclass(frozen=True, slots=True)
class ExportedModel:
    """What ``embedtune export`` tells."""

    model: Path
    source: str
    form: str
    precision: GraphPrecision
    bytes: int  # of the graph
    check: Checked
    unusable: bool = False

    def as_json(self) -> dict[str, Any]:
        return {
            "model": str(self.model),
            "source": self.source,
            "form": self.form,
            "precision": self.precision,
            "bytes": self.bytes,
            "check": self.check.model_dump(mode="json"),
        }

    def text(self) -> str:
        """The outcome in words."""
        check = self.check
        lines = [
            f"{self.model}: {self.source} as {self.form} ({self.precision}), "
            f"{self.bytes / 1e6:.1f} MB: {check.outcome}",
            f"  cosine to the original's vectors on {check.texts:,} texts: smallest "
            f"{check.min_cosine:.6f}, mean {check.mean_cosine:.6f}",
        ]
        if check.before is not None and check.after is not None:
            lines.append(
                f"  {check.metric} on {check.queries:,} dev queries: {check.before:.4f} → "
                f"{check.after:.4f} ({check.after - check.before:+.4f})"
            )
        if check.outcome == "not checked on data":
            lines.append("  int8 changes rankings: give --data to see by how much on dev")
        return "\n".join([*lines, *(f"  not good: {reason}" for reason in check.reasons)])


def export_into(
    model: str,
    form: str,
    out: Path,
    data: Path | None,
    settings: RunSettings,
    console: Console,
) -> ExportedModel:
    """Leave in ``out`` the model as a graph, with all that `OnnxEmbedder` needs beside it.

    Its vectors are compared with the model's own on the passages and dev queries of ``data`` (a
    data set, or a run), and so is the deciding metric on dev; without data on bundled texts. A
    graph that is not good is left too, and says so.

    Raises:
        ConfigError: No such form or model, a model that no graph can be made of, a missing
            package, or data without a dev split.
        IntegrityError: The model is damaged.
    """
    if form not in FORMS:
        raise ConfigError(f"--to {visible(form)}: expected one of {', '.join(FORMS)} or static")
    _check_packages(form)
    torch = LocalEmbedder(model, device="cpu", pooling=settings.model.pooling)
    given = load_data(data, settings) if data is not None else None
    if given and not given.data.qrels.get("dev"):
        raise ConfigError(f"export: {data} has no dev split to check on")
    recipe = Recipe(
        "export",
        1,
        {
            "form": form,
            "pooling": settings.model.pooling,
            "metric": settings.evaluation.metric,
            "similarity": settings.evaluation.similarity,
        },
        {"model": torch.resolved.label},
        {"data": _digest(given) if given else ""},
        versions(*LIBRARIES),
    )

    def build(folder: Path) -> dict[str, Any]:
        for left in folder.iterdir():  # by a kill
            if left.name != VECTORS:
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        console.say(f"making a graph of {model}")
        exported = _write_graph(torch, form, folder)
        for name in COPIED:
            if (torch.resolved.path / name).is_file():
                shutil.copyfile(torch.resolved.path / name, folder / name)
        with Store(folder / VECTORS) as store:
            report = console.progress(f"texts encoded by {model}")
            original = RecordedEmbedder(torch, store, progress=report)
            for precision in _precisions(form):
                exported = exported.model_copy(update={"precision": precision})
                _describe(exported, folder)
                check = _check(original, folder, precision, given, settings, store, console)
                if check.outcome != "not good":
                    break
        for path in folder.glob(f"{VECTORS}*"):
            path.unlink()
        _describe(exported.model_copy(update={"check": check}), folder)
        write_checksums(folder)
        return {
            "source": model,
            "precision": exported.precision,
            "bytes": sum((folder / name).stat().st_size for name in exported.sha256),
            "check": check.model_dump(mode="json"),
        }

    facts = build_folder(out, recipe, build).facts
    return ExportedModel(
        out,
        facts["source"],
        form,
        facts["precision"],
        facts["bytes"],
        Checked.model_validate(facts["check"]),
        unusable(given.rejects) if given else False,
    )


def load_data(data: Path, settings: RunSettings) -> Dataset:
    """A data set of the user's, or that of a run."""
    if (data / DATASET).is_dir():
        return load_dataset(data / DATASET)
    return load_given(data, settings.split, columns=settings.columns, settings=settings.source)


def _check_packages(form: str) -> None:
    from importlib.util import find_spec

    wanted = ["onnx", "onnxscript", "openvino" if form == "openvino" else "onnxruntime"]
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        extras = "onnx,openvino" if form == "openvino" else "onnx"
        raise ConfigError(
            f"export to {form}: needs {', '.join(missing)}; pip install 'embedtune[{extras}]'"
        )


def _digest(given: Dataset) -> str:
    """What the check on the data depends on."""
    data = given.data
    dev = data.qrels["dev"]
    return content_id(
        "e",
        [(chunk.id, chunk.embedded) for chunk in data.chunks],
        [(query.id, query.text) for query in data.queries if query.id in dev],
        sorted((query, sorted(grades.items())) for query, grades in dev.items()),
    )


def _precisions(form: str) -> Sequence[GraphPrecision]:
    """To be tried in this order, until one is good."""
    if form == "openvino":
        return ("bf16", "fp32") if has_bf16() else ("fp32",)
    return ("int8",) if form == "onnx-int8" else ("fp32",)


def _write_graph(torch: LocalEmbedder, form: str, folder: Path) -> Exported:
    """The graph and the tokenizer in ``folder``; what describes them is not written yet."""
    whole = folder / "whole"
    whole.mkdir()
    inputs = export_onnx(torch.model, whole / ONNX)
    graph = ONNX
    if form == "onnx-int8":
        quantise(whole / ONNX, folder / ONNX)
    elif form == "openvino":
        graph = OPENVINO
        to_openvino(whole / ONNX, folder / OPENVINO)
    else:
        for path in whole.iterdir():
            path.rename(folder / path.name)
    shutil.rmtree(whole)
    save_tokenizer(torch.model, folder)
    return describe(
        torch.model,
        folder,
        graph,
        source=torch.resolved.name,
        revision=torch.resolved.revision,
        engine="openvino" if form == "openvino" else "onnxruntime",
        precision="fp32",
        inputs=inputs,
        similarity=torch.similarity,
        matryoshka_dims=_trained_dimensions(torch.resolved.path / FACTS),
    )


def _trained_dimensions(facts: Path) -> tuple[int, ...]:
    """Dimensions that vectors may be cut to, where our own training made the model."""
    known = read_json_object(facts).get("matryoshka_dims") if facts.is_file() else None
    return tuple(own for own in known or () if isinstance(own, int))


def _describe(exported: Exported, folder: Path) -> None:
    write_json(folder / EXPORTED, exported.model_dump(mode="json"))


def _check(
    original: RecordedEmbedder,
    folder: Path,
    precision: GraphPrecision,
    given: Dataset | None,
    settings: RunSettings,
    store: Store,
    console: Console,
) -> Checked:
    # every description has another revision, so no vector is taken for another's
    embedder = OnnxEmbedder(str(folder))
    graph = RecordedEmbedder(
        embedder, store, progress=console.progress(f"texts encoded in {precision}")
    )
    texts = _texts(given)
    for role in texts:  # long texts, control tokens; then one text alone
        texts[role] += hard_texts(texts[role])
    before = [vector for role in texts for vector in original.embed(texts[role], role)]
    after = [vector for role in texts for vector in graph.embed(texts[role], role)]
    for role in texts:
        before += list(original.embed(texts[role][:3], role))
        after += [embedder.embed([text], role)[0] for text in texts[role][:3]]
    on_data = None
    if given:
        evaluator = Evaluator(given.data, settings.evaluation, near_duplicates=given.twins)

        def dev_of(one: Embedder) -> float:
            return evaluator.score_embedder(one, "dev")

        on_data = OnData(
            settings.evaluation.metric,
            len(given.data.qrels["dev"]),
            dev_of(original),
            dev_of(graph),
        )
    return judge_export(before, after, precision, on_data)


def _texts(given: Dataset | None) -> dict[Role, list[str]]:
    """What both models encode: all that dev needs, or some of the bundled probes."""
    if given:
        dev = given.data.qrels["dev"]
        return {
            "query": [query.text for query in given.data.queries if query.id in dev],
            "document": [chunk.embedded for chunk in given.data.chunks],
        }
    probes = [bundled_probe(language) for language in LANGUAGES]
    return {
        "query": [
            query.text
            for probe in probes
            for query in sorted(probe.queries, key=lambda own: tie_breaker(own.id))[:PROBED]
        ],
        "document": [
            chunk.embedded
            for probe in probes
            for chunk in sorted(probe.chunks, key=lambda own: tie_breaker(own.id))[:PROBED]
        ],
    }
