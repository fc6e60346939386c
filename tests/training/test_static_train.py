"""Training of static models: what it learns, what it never holds against a query, and resuming."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from embedtune.embed.loading import load_sentence_transformer
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.records import Chunk, Pair
from embedtune.training.plan import TrainingSettings
from embedtune.training.static import StaticSettings, build_static
from embedtune.training.static_train import (
    MEANT,
    UNUSED,
    plan_static,
    refuse_unused,
    train_static,
)

TEXTS = {
    "tow": "The tow fee is paid by the driver. A crane lifts the robot out of the mud.",
    "night": "Batteries charge at night in the dock. The dock locks itself at ten.",
    "fault": "电池温度过高时停止充电，并报告故障。维修人员应当在一小时内到场。",
    "fee": "拖车费用由司机承担。发生事故的，由保险公司支付拖车费用。",
    "radio": "The radio of a robot sends its place each minute. Without radio it stops.",
}
ASKED = [  # no word in common with the passage
    ("who settles the bill for hauling", "tow"),
    ("when do cells refill", "night"),
    ("过热怎么办", "fault"),
    ("谁出钱", "fee"),
    ("how is its position known", "radio"),
]


def chunk(id: str, text: str) -> Chunk:
    return Chunk(id, f"doc-{id}", 0, len(text), "", text)


CHUNKS = [chunk(id, text) for id, text in TEXTS.items()]
PAIRS = [Pair(f"q{number}", id, query, TEXTS[id]) for number, (query, id) in enumerate(ASKED)]


def rank_of_answers(model) -> list[int]:
    asked = model.encode([query for query, _ in ASKED], normalize_embeddings=True)
    known = model.encode(list(TEXTS.values()), normalize_embeddings=True)
    places = [list(TEXTS).index(id) for _, id in ASKED]
    scores = asked @ known.T
    return [int((row > row[place]).sum()) for row, place in zip(scores, places, strict=True)]


def mean_reciprocal(model) -> float:
    return float(np.mean([1 / (1 + rank) for rank in rank_of_answers(model)]))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    out = tmp_path_factory.mktemp("static") / "untrained"
    model = build_static(
        list(TEXTS.values()), StaticSettings(), queries=[query for query, _ in ASKED]
    )
    model.save(str(out), create_model_card=False)
    return out


def own(id: str) -> frozenset[str]:
    return frozenset()


def fit(base, work, excluded=own, score=mean_reciprocal, **settings):
    return train_static(
        PAIRS, CHUNKS, base, work, excluded=excluded, score=score,
        settings=TrainingSettings(**settings),
    )  # fmt: skip


def test_it_learns_words_that_lexical_search_cannot_know(base, tmp_path):
    trained = fit(base, tmp_path / "a")
    assert trained.base_score < 0.7
    assert trained.best_score == 1.0
    assert rank_of_answers(load_sentence_transformer(str(trained.model))) == [0] * 5
    # nothing else is left than what the caller takes away
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["history.jsonl", "model"]
    rows = [json.loads(line) for line in (tmp_path / "a" / "history.jsonl").open()]
    assert rows[0] == {"step": 0, "epoch": 0.0, "dev": trained.base_score}
    assert [row["loss"] for row in rows if "loss" in row][-1] < rows[1]["loss"]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(base, tmp_path):
    def weights(name: str, seed: int):
        trained = fit(base, tmp_path / name, seed=seed, max_steps=4, batch_size=2)
        return load_sentence_transformer(str(trained.model))[0].embedding.weight.detach().numpy()

    first = weights("a", 1)
    np.testing.assert_array_equal(first, weights("b", 1))
    assert np.abs(first - weights("c", 2)).max() > 1e-4


def test_a_stopped_training_goes_on_to_the_same_model(base, tmp_path):
    class Stop(Exception):
        pass

    calls = []

    def stops(model) -> float:
        calls.append(1)
        if len(calls) == 3:  # the base, then the first evaluation; stopped in the second
            raise Stop
        return mean_reciprocal(model)

    whole = fit(base, tmp_path / "whole", max_steps=8)
    with pytest.raises(Stop):
        fit(base, tmp_path / "cut", score=stops, max_steps=8)
    assert [path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()] == ["checkpoint-2"]
    resumed = fit(base, tmp_path / "cut", max_steps=8)
    assert resumed.history == whole.history
    one, other = (
        (model / "model.safetensors").read_bytes() for model in (whole.model, resumed.model)
    )
    assert one == other


def test_what_answers_a_query_is_not_held_against_it(base, tmp_path):
    """The gradient of a masked passage's own words is that of the crops and the pull alone."""
    import torch

    from embedtune.training.static_train import _Lesson, words_of

    def gradient(excluded, word: str):
        model = load_sentence_transformer(str(base))
        plan = plan_static(TrainingSettings(), 2, 5, len(CHUNKS))
        single = [chunk(one.id, one.text.replace(".", " ").replace("。", " ")) for one in CHUNKS]
        place = {one.id: number for number, one in enumerate(single)}
        words = words_of(model[0].embedding.weight)
        lesson = _Lesson(
            words, model[0].tokenizer, PAIRS[:1], single, place, excluded, TrainingSettings(), plan
        )
        assert not len(lesson.origin)  # passages of one sentence give no crops
        lesson.loss(1).backward()
        row = model[0].tokenizer.get_vocab()[word]
        return float(torch.linalg.vector_norm(words.moves.grad[row]))

    assert gradient(own, "radio") > 1e-6
    assert gradient(lambda query: frozenset({"radio", "tow"}), "radio") == 0
    assert gradient(lambda query: frozenset({"radio", "tow"}), "tow") > 1e-6


def test_of_a_large_corpus_the_batch_and_drawn_passages_are_ranked(base, monkeypatch):
    from embedtune.training import static_train

    monkeypatch.setattr(static_train, "PASSAGES", 2)
    model = load_sentence_transformer(str(base))
    plan = plan_static(TrainingSettings(), 5, 5, len(CHUNKS))
    words = static_train.words_of(model[0].embedding.weight)
    chunks = [*CHUNKS[:2], *(chunk(f"x{number}", f"filler {number}") for number in range(50))]
    lesson = static_train._Lesson(
        words, model[0].tokenizer, PAIRS[:2], chunks,
        {one.id: number for number, one in enumerate(chunks)}, own, TrainingSettings(), plan,
    )  # fmt: skip
    shown = lesson._shown(np.random.default_rng(0), [0, 1])
    assert {0, 1} <= set(shown)
    assert len(shown) <= 4
    assert float(lesson.loss(1).detach()) > 0


def test_mined_negatives_are_ranked_even_of_a_large_corpus(base, monkeypatch):
    from embedtune.training import static_train

    monkeypatch.setattr(static_train, "PASSAGES", 2)
    chunks = [*CHUNKS[:2], *(chunk(f"x{number}", f"filler {number}") for number in range(50))]
    pairs = [
        replace(pair, negatives=(("x7", "filler 7"), ("x9", "filler 9"), ("gone", "gone")))
        for pair in PAIRS[:2]
    ]
    model = load_sentence_transformer(str(base))
    place = {one.id: number for number, one in enumerate(chunks)}
    for count, expected in (("auto", {9, 11}), (1, {9}), (0, set())):
        settings = TrainingSettings(negatives_per_pair=count)
        lesson = static_train._Lesson(
            static_train.words_of(model[0].embedding.weight), model[0].tokenizer, pairs, chunks,
            place, own, settings, plan_static(settings, 5, 5, len(chunks)),
        )  # fmt: skip
        ranked: list[set[int]] = []

        def shown(draw, needed, ranked=ranked):
            ranked.append(set(map(int, needed)))
            return sorted(ranked[-1])

        monkeypatch.setattr(lesson, "_shown", shown)
        lesson.loss(1)
        assert ranked == [{0, 1} | expected]


def test_steps_and_rates_that_are_set_are_kept():
    usual = plan_static(TrainingSettings(), 300, 64, 1000)
    assert (usual.batch_size, usual.dimensions) == (300, (64,))
    assert usual.steps % usual.evaluate_every == 0
    plan = plan_static(
        TrainingSettings(epochs=3, batch_size=100, learning_rate=0.01, temperature=0.1,
                         evaluate_every=2), 300, 64, 1000,
    )  # fmt: skip
    assert (plan.steps, plan.learning_rate, plan.temperature) == (9, 0.01, 0.1)
    assert plan.evaluate_every == 2
    assert plan_static(TrainingSettings(max_steps=7), 300, 64, 1000).steps == 7


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("lora", {}),
        ("new_tokens", 5),
        ("freeze_layers", 2),
        ("trainer", {"max_grad_norm": 2.0}),
        ("also", ["more.jsonl"]),
        ("loss", "gist"),
        ("matryoshka", [32, 16]),
        ("guide", "model"),
        ("teacher", "model"),
        ("hardness", 5.0),
        ("directions", ["query_to_doc", "doc_to_query"]),
        ("warmup", 0.2),
        ("scheduler", "cosine"),
        ("weight_decay", 0.1),
        ("warmup_documents", "crops"),
        ("sampler", "random"),
        ("mixing", "round_robin"),
        ("tokens_at_once", 512),
        ("gradient_checkpointing", True),
        ("attention_dropout", True),
        ("adaptive_layers", True),
        ("search", "optuna"),
        ("seeds", 3),
        ("keep", "average"),
        ("device", "cuda"),
        ("precision", "bf16"),
    ],
)
def test_a_setting_without_meaning_is_refused_with_the_reason(setting, value):
    further = {"guide": "model"} if value == "gist" else {}
    with pytest.raises(ConfigError, match=rf"training.{setting}: .*static model") as caught:
        refuse_unused(TrainingSettings(**{setting: value}, **further))
    assert len(str(caught.value)) > 60


def test_every_setting_is_either_followed_or_refused():
    """A new setting has to be decided on."""
    followed = {"epochs", "max_steps", "learning_rate", "batch_size", "negatives_per_pair",
                "temperature", "evaluate_every", "minutes", "report_to", "log_every", "patience",
                "seed", "merge", "allow_unknown_tokens"}  # fmt: skip
    assert TrainingSettings.model_fields.keys() == followed | UNUSED.keys() | MEANT.keys()
    refuse_unused(TrainingSettings(
        seed=1, epochs=3, batch_size=4, keep="last", minutes=0, patience=2, seeds=1, device="cpu",
        precision="fp32", matryoshka="off", loss="mnrl", negatives_per_pair=0,
    ))  # fmt: skip


def test_the_settings_of_another_base_make_settings_for_a_static_one():
    from embedtune.pipeline.untrained import instead

    for keep in ("auto", "best", "last", "average"):
        theirs = TrainingSettings(keep=keep, freeze_layers=2, seeds=3, warmup=0.3, seed=7)
        own = instead(theirs)
        refuse_unused(own)
        assert (own.seed, own.keep) == (7, "auto" if keep == "average" else keep)


def test_several_processes_are_refused(base, tmp_path, monkeypatch):
    from embedtune.training import static_train
    from embedtune.training.ranks import Group

    monkeypatch.setattr(static_train, "group", lambda: Group(0, 2))
    with pytest.raises(ConfigError, match="without torchrun"):
        fit(base, tmp_path / "a")


def test_a_gradient_that_is_not_finite_reaches_no_weight(base, tmp_path, monkeypatch):
    from embedtune.training import static_train

    class Broken(static_train._Lesson):
        def loss(self, step):
            loss = super().loss(step)
            if step == 3:  # a finite loss whose gradient is not
                loss = loss + (self.words.factors.sum() * 0).abs().sqrt()
            return loss

    monkeypatch.setattr(static_train, "_Lesson", Broken)
    with pytest.raises(IntegrityError, match="step 3: the gradient is nan"):
        fit(base, tmp_path / "a", max_steps=8)
    assert not (tmp_path / "a" / "model").exists()


def test_patience_ends_it_and_a_kill_after_the_last_evaluation_changes_nothing(
    base, tmp_path, monkeypatch
):
    from embedtune.training import static_train

    class Killed(BaseException):
        pass

    def falling():
        scores = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
        return lambda model: next(scores)

    usual = {"max_steps": 8, "evaluate_every": 1, "patience": 2, "keep": "best"}
    whole = fit(base, tmp_path / "whole", score=falling(), **usual)
    assert (whole.best_step, whole.best_score) == (1, 0.9)
    assert [row["step"] for row in whole.history if "dev" in row] == [0, 1, 2, 3]

    def killed(*_):
        raise Killed

    work = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(static_train, "publish", killed)
        with pytest.raises(Killed):
            fit(base, work, score=falling(), **usual)
    again = fit(base, work, score=lambda model: 0.5, **usual)
    assert again.history == whole.history
    one, other = ((own.model / "model.safetensors").read_bytes() for own in (whole, again))
    assert one == other


def test_a_kill_after_the_model_was_published_changes_nothing(base, tmp_path, monkeypatch):
    from embedtune.training import static_train

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    whole = fit(base, tmp_path / "whole", max_steps=4)
    work = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(static_train, "write_jsonl", killed)
        with pytest.raises(Killed):
            fit(base, work, max_steps=4)
    assert (work / "model").exists()
    again = fit(base, work, max_steps=4)
    assert again.history == whole.history
    one, other = ((own.model / "model.safetensors").read_bytes() for own in (whole, again))
    assert one == other


def test_one_passage_is_nothing_to_learn_from(base, tmp_path):
    with pytest.raises(NothingUsable, match="at least 2 pairs"):
        train_static(
            PAIRS[:1], CHUNKS, base, tmp_path, excluded=own, score=mean_reciprocal,
            settings=TrainingSettings(),
        )  # fmt: skip


# ---- through the commands


@pytest.fixture(scope="module")
def bilingual(tmp_path_factory, make_beir):
    """English and Chinese passages in one BEIR folder."""
    folder = make_beir(tmp_path_factory.mktemp("two") / "data")
    other = make_beir(tmp_path_factory.mktemp("two") / "zh", chinese=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        rows = [json.loads(line) for line in (other / name).open(encoding="utf-8")]
        with (folder / name).open("a", encoding="utf-8") as lines:
            for row in rows:
                lines.write(json.dumps({**row, "_id": f"zh-{row['_id']}"}) + "\n")
    for split in ("train", "dev", "test"):
        added = (other / "qrels" / f"{split}.tsv").read_text().splitlines()[1:]
        with (folder / "qrels" / f"{split}.tsv").open("a") as lines:
            for line in added:
                query, passage, grade = line.split("\t")
                lines.write(f"zh-{query}\tzh-{passage}\t{grade}\n")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, command, bilingual):
    out = tmp_path_factory.mktemp("trained") / "model"
    result = command("train", "--data", bilingual, "--base", "static", "--out", out, "--json")
    return out, result


def test_train_leaves_a_model_and_says_that_it_is_transductive(trained):
    out, result = trained
    assert result.code == 0, result.err
    assert result.json["base"] == "static"
    assert result.json["dev"] >= result.json["base_score"] > 0.5
    facts = json.loads((out / "embedtune.json").read_text())
    assert facts["base"] == "static"
    assert facts["transductive"] is True
    assert not (out / "untrained").exists()
    assert not (out / "work").exists()


def test_plain_sentence_transformers_gives_the_same_ranking(trained, bilingual, tmp_path):
    from embedtune.datasets.beir import read_beir
    from embedtune.embed.local import LocalEmbedder
    from embedtune.retrieve.dense import DenseRetriever

    out, _ = trained
    data = read_beir(bilingual).data
    queries = [query.text for query in data.queries]
    ours = DenseRetriever(LocalEmbedder(str(out)), data.chunks).search(queries, 5)
    script = (
        "import json, sys\n"
        "from sentence_transformers import SentenceTransformer\n"
        "model = SentenceTransformer(sys.argv[1], device='cpu')\n"
        "texts, queries = json.load(sys.stdin)\n"
        "scores = model.similarity(model.encode(queries), model.encode(texts))\n"
        "print(json.dumps(scores.tolist()))\n"
        "assert not [name for name in sys.modules if name.startswith('embedtune')]\n"
    )
    texts = [chunk.embedded for chunk in data.chunks]
    done = subprocess.run(
        [sys.executable, "-c", script, str(out)], input=json.dumps([texts, queries]),
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    place = {chunk.id: number for number, chunk in enumerate(data.chunks)}
    for row, hits in zip(json.loads(done.stdout), ours, strict=True):
        found = [row[place[hit.chunk]] for hit in hits]
        np.testing.assert_allclose(found, sorted(row, reverse=True)[:5], atol=1e-5)


def test_the_verdict_is_against_the_best_untuned_system(trained, command, bilingual):
    out, _ = trained
    result = command("compare", "--data", bilingual, "--base", "static", "--tuned", out, "--json")
    assert result.code == 0, result.err
    names = {system["name"] for system in result.json["systems"]}
    assert {"base", "tuned", "bm25", "tuned + bm25"} <= names
    assert "is the base" in result.err
    assert not [flag for flag in result.json["flags"] if flag["code"] in ("unknown-tokens",
                                                                         "cut-texts")]  # fmt: skip


def test_word_vectors_that_are_not_there_are_found_first(command, bilingual, tmp_path):
    result = command("train", "--data", bilingual, "--base", "static:none.vec",
                     "--out", tmp_path / "out")  # fmt: skip
    assert (result.code, len(result.lines)) == (2, 1)
    assert "static:none.vec" in result.err
    assert not (tmp_path / "out").exists()


def test_word_vectors_start_it(command, bilingual, tmp_path):
    file = tmp_path / "words.vec"
    file.write_text("robot 1 0 0\nbattery 0 1 0\n电 0 0 1\n", "utf-8")
    result = command("train", "--data", bilingual, "--base", f"static:{file}", "--json",
                     "--out", tmp_path / "out", "--set", "training.max_steps=2")  # fmt: skip
    assert result.code == 0, result.err
    lexical = command("train", "--data", bilingual, "--base", "static", "--json",
                      "--out", tmp_path / "plain", "--set", "training.max_steps=2")  # fmt: skip
    shapes = [
        load_sentence_transformer(str(folder)).get_embedding_dimension()
        for folder in (tmp_path / "out", tmp_path / "plain")
    ]
    assert lexical.code == 0
    assert shapes[0] == shapes[1] + 3


def test_a_run_from_documents_with_the_static_base(command, mixed_folder, tmp_path):
    config = tmp_path / "embedtune.yaml"
    config.write_text(
        json.dumps({
            "run": str(tmp_path / "runs" / "static"),
            "documents": {"paths": [str(mixed_folder / "docs")]},
            "chunks": {"tokens": 48, "overlap": 0},
            "llm": {"provider": "scripted", "answers": str(mixed_folder / "answers.jsonl")},
            "model": {"base": "static"},
            "negatives": {"method": "hard"},
            "training": {"max_steps": 5},
        }),
        "utf-8",
    )  # fmt: skip
    planned = command("run", "-c", config, "--dry-run")
    assert planned.code == 0, planned.err
    result = command("run", "-c", config, "--json")
    assert result.code == 0, result.err
    names = {system["name"] for system in result.json["systems"]}
    assert {"base", "tuned", "bm25", "tuned + bm25"} <= names
    assert "transductive" in " ".join(result.json["reasons"])
    again = command("run", "-c", config, "--json")
    assert again.json == result.json
