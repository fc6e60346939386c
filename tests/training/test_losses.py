"""The table of losses: what fits what, and that each learns."""

import importlib.util
import math
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from embedtune.config import load_config
from embedtune.errors import ConfigError
from embedtune.records import Pair, no_progress
from embedtune.training import plain
from embedtune.training.batches import class_batches, shuffled_batches
from embedtune.training.best import BestModel
from embedtune.training.collapse import Watch
from embedtune.training.examples import Task, from_labelled, from_pairs, from_scored, role_of
from embedtune.training.losses import (
    COLUMNS,
    LOSSES,
    build_loss,
    check_loss,
    choose_loss,
    fitting,
    losses_table,
    shaped,
    vectors_only,
)
from embedtune.training.plan import TrainingSettings, plan_training

TOPICS = ("robot", "battery", "mud", "fee", "radio", "机", "winter", "fruit", "dock", "tow")


def excluded(query: str) -> frozenset[str]:
    return frozenset({f"c{query[1:]}"})


def passage(number: int) -> str:
    return f"the {TOPICS[number % 10]} is for the {TOPICS[(number + 3) % 10]}"


PAIRS = [
    Pair(
        f"q{n}", f"c{n}", f"what is {TOPICS[n]}", passage(n),
        ((f"c{(n + 1) % 10}", passage(n + 1)), (f"x{n}", f"a {TOPICS[(n + 5) % 10]}"))[: 1 + n % 2],
    )
    for n in range(10)
]  # fmt: skip
EXAMPLES = {
    "pairs": from_pairs("p", [Pair(own.query, own.chunk, own.anchor, own.positive)
                              for own in PAIRS]),
    "triplets": from_pairs("t", PAIRS),
    "scored": from_scored("s", [(own.anchor, own.positive, n % 2) for n, own in enumerate(PAIRS)]),
    "labelled": from_labelled("l", [(own.positive, "ab"[n % 2]) for n, own in enumerate(PAIRS)]),
}  # fmt: skip


@dataclass
class Guide:
    """Vectors by the letters of a text."""

    dimension: int = 32
    name: str = "letters"
    max_tokens: int = 64
    similarity: str = "cosine"

    def embed(self, texts, role):
        assert len(set(texts)) == len(texts)  # each is asked for once
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for letter in text:
                vectors[row, ord(letter) % self.dimension] += 1
        return vectors


def teacher(queries, passages):
    assert len(set(zip(queries, passages, strict=True))) == len(queries)  # as above
    return [
        2.0 * len({*query.split()} & {*passage.split()}) - 1
        for query, passage in zip(queries, passages, strict=True)
    ]


def settings_for(name: str, **further: object) -> TrainingSettings:
    return TrainingSettings(
        loss=name, guide="letters", teacher="overlap", device="cpu", precision="fp32", **further
    )


def loaded(tiny_model: Path):
    from embedtune.embed.loading import load_sentence_transformer

    return load_sentence_transformer(str(tiny_model), device="cpu")


LAYERED = [
    (name, adaptive)
    for name, kind in LOSSES.items()
    for adaptive in (False, True)
    if not (adaptive and kind.calls_in_portions)  # refused, see below
]


@pytest.mark.parametrize(("name", "adaptive"), LAYERED)
def test_each_loss_trains_in_the_plain_engine(tiny_model, tmp_path, name, adaptive):
    import torch

    kind = LOSSES[name]
    torch.manual_seed(1)
    model = loaded(tiny_model)
    before = {key: own.clone() for key, own in model.state_dict().items()}
    examples = shaped(EXAMPLES[kind.formats[-1]], kind, excluded)
    settings = settings_for(
        name, max_steps=3, batch_size=8, learning_rate=1e-3, adaptive_layers=adaptive
    )
    plan = plan_training(settings, len(examples), 32)
    loss = build_loss(
        kind, model, examples, excluded, settings, (32, 16), guide=Guide(), teacher=teacher
    )
    labels = tuple(range(len(examples))) if kind.labels == "position" else examples.labels

    def order(epoch):
        drawn = (
            class_batches(labels, size=8, seed=1, epoch=epoch)
            if kind.batches == "by_label"
            else shuffled_batches(len(examples), size=5, seed=1, epoch=epoch)
        )
        return ((0, rows) for rows in drawn)

    texts = [text for column in examples.columns.values() for text in column]
    watch = Watch(texts, lambda model, texts: model.encode(list(texts)), model)
    rows = plain.fit(
        model, [Task(examples, loss, labels)], order,
        BestModel(tmp_path / "best", lambda model: 0.5, watch), settings, plan,
        checkpoints=tmp_path / "checkpoints", resume=None, history=tmp_path / "history.jsonl",
        progress=no_progress,
    )  # fmt: skip
    losses = [row["loss"] for row in rows if "loss" in row]
    assert all(math.isfinite(value) for value in losses)
    assert sum(losses) > 0  # in some batches a margin may be kept already
    changed = [key for key, own in model.state_dict().items() if not torch.equal(own, before[key])]
    assert any("layer.1." in key for key in changed)


CASES = [(name, format) for name, kind in LOSSES.items() for format in kind.formats]


@pytest.mark.parametrize("dimensions", [(32,), (32, 16)])
@pytest.mark.parametrize(("name", "format"), CASES)
def test_a_loss_is_the_same_over_texts_and_over_vectors(tiny_model, name, format, dimensions):
    import torch

    kind = LOSSES[name]
    model = loaded(tiny_model).eval()
    examples = shaped(EXAMPLES[format], kind, excluded)
    labels = torch.tensor(range(len(examples)) if kind.labels == "position" else examples.labels)

    def features():
        return [model.preprocess(list(texts)) for texts in examples.columns.values()]

    found = []
    for embedded in (False, True):
        torch.manual_seed(5)  # softmax begins with random weights
        loss = build_loss(
            kind, vectors_only(32) if embedded else model, examples, excluded,
            settings_for(name), dimensions, guide=Guide(), teacher=teacher, embedded=embedded,
        )  # fmt: skip
        model.zero_grad()
        columns = [model(own) for own in features()] if embedded else features()
        value = loss(columns, labels)
        value.backward()
        found.append((value.item(), [own.grad.clone() for own in model.parameters()
                                     if own.grad is not None]))  # fmt: skip
    (value, gradients), (other, others) = found
    assert value > 0
    assert other == pytest.approx(value, rel=1e-5)
    largest = max(float(own.abs().max()) for own in gradients)
    for one, two in zip(gradients, others, strict=True):
        assert torch.allclose(one, two, atol=1e-5 * max(1, largest))


def test_gist_is_the_loss_of_the_library_where_nothing_else_is_known(tiny_model):
    import torch
    from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

    model, guide = loaded(tiny_model).eval(), loaded(tiny_model).eval()
    with torch.no_grad():
        for weights in guide.parameters():
            weights += torch.randn_like(weights) / 10

    class Local(Guide):
        def embed(self, texts, role):
            return guide.encode(list(texts))

    examples = EXAMPLES["pairs"]
    inputs = [model.preprocess(list(texts)) for texts in examples.columns.values()]
    ours = build_loss(
        LOSSES["gist"], model, examples, lambda query: frozenset(), settings_for("gist"), (32,),
        guide=Local(),
    )(inputs, torch.arange(10))  # fmt: skip
    inputs = [model.preprocess(list(texts)) for texts in examples.columns.values()]
    theirs = GISTEmbedLoss(model, guide, temperature=0.05)(inputs, None)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_a_guide_of_other_width_teaches_through_a_projection(tiny_model):
    kind = LOSSES["embed_distill"]
    loss = build_loss(
        kind, vectors_only(32), EXAMPLES["pairs"], excluded, settings_for(kind.name), (32,),
        guide=Guide(dimension=48), embedded=True,
    )  # fmt: skip
    assert [tuple(own.shape) for own in loss.parameters()] == [(48, 32), (48,)]


def test_the_teacher_of_margins_is_followed_to_the_letter():
    """By hand: cosines of 1 and 0 at temperature 0.5 are a margin of 2; the teacher's is 6."""
    import torch

    pairs = [Pair("q0", "c0", "a b c", "a b c", (("x", "d"),))]  # teacher: 5 and -1
    kind = LOSSES["margin_mse"]
    loss = build_loss(
        kind, vectors_only(2), shaped(from_pairs("t", pairs), kind, excluded), excluded,
        settings_for("margin_mse", temperature=0.5), (2,), teacher=teacher, embedded=True,
    )  # fmt: skip
    columns = [torch.tensor([own]) for own in ([1.0, 0.0], [2.0, 0.0], [0.0, 1.0])]
    found = loss([{"sentence_embedding": own} for own in columns], torch.tensor([0]))
    assert found.item() == pytest.approx((2 - 6) ** 2)


# ---- which loss fits


@pytest.mark.parametrize(
    ("format", "labels", "name"),
    [("pairs", None, "mnrl"), ("triplets", None, "mnrl"), ("scored", (0.2, 1.0), "cosent"),
     ("scored", (0.0, 1.0), "cosent"), ("labelled", (0, 1), "batch_hard")],
)  # fmt: skip
def test_auto_goes_by_the_data_and_says_why(format, labels, name):
    kind, why = choose_loss("auto", format, labels)
    assert kind is LOSSES[name]
    assert why.startswith(f"{name}: ")
    assert kind.name in fitting(format, labels)


def test_what_the_user_names_is_taken():
    kind, why = choose_loss("triplet", "triplets")
    assert (kind.name, why) == ("triplet", "triplet, as training.loss says")


def test_a_loss_that_does_not_fit_is_refused_with_those_that_do():
    with pytest.raises(ConfigError) as caught:
        choose_loss("triplet", "pairs")
    first, *rows = caught.value.faults
    assert first == (
        "training.loss: triplet needs triplets (anchor, positive, negative…); the data are pairs "
        "(anchor, positive). What fits:"
    )
    assert rows[0] == (
        "  pairs (anchor, positive): mnrl, cached_mnrl, gist, cached_gist, mega_batch_margin, "
        "embed_distill"
    )
    assert len(rows) == len(COLUMNS)


@pytest.mark.parametrize(
    ("name", "format", "labels", "problem"),
    [
        ("mnrl", "scored", (0.5,), r"needs pairs \(anchor, positive\) or triplets"),
        ("cosent", "pairs", None, r"needs scored \(sentence1, sentence2, score\)"),
        ("batch_all", "triplets", None, r"needs labelled \(text, label\)"),
        ("contrastive", "scored", (0.0, 0.5, 1.0), "needs scores that are all 0 or 1"),
        ("online_contrastive", "scored", (0.0, 0.1), "needs scores that are all 0 or 1"),
        ("softmax", "scored", tuple(n / 50 for n in range(50)), "2 to 20 different ones"),
        ("softmax", "scored", (1.0, 1.0), "2 to 20 different ones"),
    ],
)
def test_data_that_do_not_fit(name, format, labels, problem):
    with pytest.raises(ConfigError, match=problem) as caught:
        check_loss(name, format, labels)
    offered = next(row for row in caught.value.faults if row.startswith(f"  {format} "))
    assert name not in offered.partition(": ")[2].split(", ")


@pytest.mark.parametrize(("name", "format"), CASES)
def test_every_loss_fits_the_formats_of_its_row(name, format):
    check_loss(name, format, (0.0, 1.0) if format == "scored" else None)


# ---- settings


def test_the_settings_know_every_loss():
    assert set(get_args(TrainingSettings.model_fields["loss"].annotation)) == {"auto", *LOSSES}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("loss: gist", "training.guide: gist needs one"),
        ("loss: margin_mse", "training.teacher: margin_mse needs one"),
        *(
            (
                f"{{loss: {kind.name}, guide: m, adaptive_layers: true}}",
                f"adaptive_layers: not with {kind.name}",
            )
            for kind in LOSSES.values()
            if kind.calls_in_portions
        ),
        ("directions: [doc_to_query]", "must hold query_to_doc"),
        ("loss: mnlr", "mnrl"),
    ],
)
def test_settings_that_do_not_go_together_are_told_before_anything_is_done(
    tmp_path, lines, problem
):
    file = tmp_path / "embedtune.yaml"
    body = lines if lines.startswith("{") else f"{{{lines}}}"
    file.write_text(f"documents: {{paths: [docs/]}}\ntraining: {body}\n", "utf-8")
    with pytest.raises(ConfigError, match=problem):
        load_config(file)


def test_odd_dimensions_are_refused_where_they_have_to_be_halved():
    with pytest.raises(ConfigError, match=r"\[15\]; angle needs even dimensions"):
        build_loss(
            LOSSES["angle"], vectors_only(32), EXAMPLES["scored"], excluded, settings_for("angle"),
            (32, 15), embedded=True,
        )  # fmt: skip


def test_layers_of_a_model_without_any_are_refused():
    with pytest.raises(ConfigError, match="the model has no layers"):
        build_loss(
            LOSSES["mnrl"], vectors_only(32), EXAMPLES["pairs"], excluded,
            settings_for("mnrl", adaptive_layers=True), (32,), embedded=True,
        )  # fmt: skip


@pytest.mark.parametrize(("name", "missing"), [("gist", "guide"), ("distill_kl", "teacher")])
def test_a_guide_or_teacher_that_is_not_given_is_named(name, missing):
    with pytest.raises(ConfigError, match=rf"training\.{missing}: {name} needs one"):
        build_loss(
            LOSSES[name], vectors_only(32), EXAMPLES["triplets"], excluded, settings_for(name),
            (32,), embedded=True,
        )  # fmt: skip


def test_columns_have_the_role_that_the_guide_is_asked_with():
    assert [role_of(column) for column in EXAMPLES["triplets"].columns] == [
        "query", "document", "document", "document"
    ]  # fmt: skip


def test_the_page_of_losses_has_the_table_of_the_code():
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "losses.md").read_text("utf-8")
    assert losses_table() in page, "run: python scripts/update_docs.py"
    script = importlib.util.spec_from_file_location("update", root / "scripts" / "update_docs.py")
    module = importlib.util.module_from_spec(script)
    script.loader.exec_module(module)
    assert module.losses_page(page) == page
