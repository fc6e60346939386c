import json
import shutil

import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.pipeline.indexing import advised_score
from embedtune.records import Chunk, content_id
from embedtune.retrieve.index import prepare, update
from embedtune.retrieve.stores import open_store
from stub_server import Behaviour, StubServer

NIGHT = "What does a night shift cost?"
TEXTS = [
    ("fees.md", 3, "The night fee is 12 euros a shift."),
    ("battery.md", None, "A flat battery needs ninety minutes at the dock."),
    ("手册.md", 2, "夜班费用为每班十二欧元。"),
]


def make_index(place, dimension=256):
    chunks = [
        Chunk(content_id("c", text), name, 0, len(text), "", text, page=page, source=name)
        for name, page, text in TEXTS
    ]
    embedder, store = HashingEmbedder(dimension), open_store(place)
    prepare(store, embedder, source=f"hashing:{dimension}")
    update(store, chunks, embedder)
    store.close()
    return place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return make_index(tmp_path_factory.mktemp("handbook") / "index")


@pytest.fixture
def ask(command, place):
    def run(*arguments, answer="Twelve euros [1]. Sure [9].", question=NIGHT, **behaviour):
        with StubServer(Behaviour(answer=lambda body: answer, **behaviour)) as server:
            run.server = server
            return command(
                "ask", question, "--index", place, "--set", f"llm.base_url={server.url}",
                "--set", "llm.model=stub", "--set", "llm.backoff=0.01", *arguments,
            )  # fmt: skip

    return run


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_an_answer_is_followed_by_its_sources_and_what_was_removed(ask, stream):
    done = ask(stream)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[:2] == ["Twelve euros [1]. Sure.", ""]
    assert "[1] fees.md, p. 3" in lines
    assert '    "The night fee is 12 euros a shift."' in lines
    assert "Removed from the answer, since no passage has that number: [9]." in lines
    assert ask.server.requests[0][1]["stream"] is True


def test_chinese_works_as_english_does(ask):
    done = ask(question="夜班费用是多少？", answer="十二欧元【1】。")
    assert done.out.splitlines()[0] == "十二欧元[1]。"
    assert "[1] 手册.md, p. 2" in done.out
    missing = ask("--min-score", "0.99", question="冬季有什么规定？")
    assert missing.out.splitlines()[0] == "文档中没有这个问题的答案。"


def test_json_is_one_object(ask):
    found = ask("--json").json
    assert found["answer"] == "Twelve euros [1]. Sure."
    assert found["status"] == "answered"
    assert found["citations"][0]["quote"] == "The night fee is 12 euros a shift."
    assert found["removed"] == [9]
    assert found["usage"]["input_tokens"] > 0


def test_an_answer_without_citation_is_marked(ask):
    assert "This answer names no passage" in ask(answer="Twelve euros.").out


def test_below_the_threshold_no_model_is_asked(ask):
    done = ask("--min-score", "0.99")
    assert done.code == 0
    assert done.out.startswith("The documents do not answer this question.")
    assert "no language model was asked" in done.out
    assert ask.server.requests == []
    ask("--min-score", "off")
    assert len(ask.server.requests) == 1


def test_control_characters_of_a_model_do_not_reach_the_terminal(ask):
    done = ask(answer="Twelve \x1b[31m euros\u202e [1].")
    assert "\x1b" not in done.out
    assert "\u202e" not in done.out


def test_before_and_after_stand_side_by_side(ask, tmp_path):
    other = make_index(tmp_path / "other", 16)
    found = ask("--compare", other, "--json").json
    assert set(found) == {"question", "before", "after", "moves"}
    assert found["before"]["index"] == str(other)
    assert {move["id"] for move in found["moves"]} == {
        own["id"] for side in ("before", "after") for own in found[side]["passages"]
    }
    shown = ask("--compare", other).out
    assert shown.splitlines()[0].split() == ["passage", "before", "after"]
    assert shown.count("Twelve euros [1]. Sure.") == 2


def test_a_model_is_compared_over_the_same_passages(ask, place):
    before = sorted(place.rglob("*"))
    found = ask("--compare", "hashing:64", "-k", "1", "--how", "dense", "--json").json
    assert len(found["before"]["passages"]) == 1
    assert sorted(place.rglob("*")) == before, "the index itself is not touched"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--min-score", "high"], 2, "--min-score high: expected a number"),
        (["--min-score", "nan"], 2, "expected a number"),
        (["--how", "magic"], 2, "--how magic"),
        (["--rerank", "no/such-model-here"], 5, "no/such-model-here"),
        (["--compare", "no/such-model-here"], 5, "no/such-model-here"),
    ],
)
def test_faults_are_told_before_any_model_is_asked(ask, arguments, code, said):
    done = ask(*arguments)
    assert done.code == code, done.err
    assert said in done.err
    assert "Traceback" not in done.err
    assert ask.server.requests == []


def test_a_place_without_index_and_a_blank_question(command, tmp_path):
    done = command("ask", NIGHT, "--index", tmp_path, env={"LLM_MODEL": "m", "OPENAI_API_KEY": "k"})
    assert done.code == 2
    assert "embedtune index" in done.err
    assert command("ask", "  ", "--index", tmp_path).code == 2


def test_a_service_that_fails_is_exit_5(ask):
    done = ask(faults=1.0, stubborn=True, kinds=("503",))
    assert done.code == 5
    assert "503" in done.err
    assert len(ask.server.requests) == 3
    assert ask("--no-stream", stream_end="cut", answer="word " * 20).code == 5


def evidence(threshold):
    """What a run leaves whose evaluation advises that score, and a higher one for precision."""
    share = {"value": 1.0, "low": 1.0, "high": 1.0, "count": 9}
    more = {"precision": share, "recall": share, "false_hits": share}
    common = {"split": "test", "code": "", "dev": 40, "test": 40, "basis": ""}
    steps = [
        {"wanted": 0.95, "reached": 0.96, "threshold": threshold + 0.1, **more},
        {"wanted": 0.9, "reached": 0.96, "threshold": threshold, **more},
    ]
    advice = [
        {"use": "no-answer", "system": "base", "thresholds": [{**steps[1], "threshold": 0.3}],
         **common},
        {"use": "cache", "system": "tuned", "thresholds": [], **common},
        {"use": "no-answer", "system": "tuned", "thresholds": steps, **common},
    ]  # fmt: skip
    grid = {"system": "tuned", "metric": "ndcg@10", "split": "test", "queries": 1, "groups": 1,
            "rows": 1, "indexes": [], "recommended": 0, "judged_on": [], "rescoring_counts": False,
            "loss": 0.0, "margin": 0.0}  # fmt: skip
    scores = {"edges": [0.0, 1.0], "spreads": [], "advice": advice}
    return json.dumps({"compression": grid, "map": None, "scores": scores})


@pytest.mark.model
def test_the_index_keeps_the_threshold_of_the_run_that_trained_its_model(
    command, tmp_path, make_run
):
    run = make_run(tmp_path / "run", evidence=evidence(1.5))  # a cosine never reaches it
    place = tmp_path / "index"
    told = command("index", run, "--out", place)
    assert "from a vector score of 1.500 on" in told.out
    model = (run / "08-training" / "model").rename(tmp_path / "moved")
    shutil.rmtree(run)
    arguments = ("ask", "who is the driver", "--index", place, "--model", model, "--no-llm")
    found = command(*arguments, "--json").json
    assert (found["status"], found["reason"]) == ("not-in-documents", "weak")
    assert command(*arguments, "--min-score", "off", "--json").json["status"] == "quoted"
    base = advised_score(str(tmp_path / "elsewhere" / "model"))
    assert base is advised_score("sentence-transformers/all-MiniLM-L6-v2") is None


@pytest.mark.parametrize(
    ("question", "header", "sentence", "source"),
    [
        (NIGHT, "In the documents' own words (no language model was asked):",
         "The night fee is 12 euros a shift.", "fees.md, p. 3"),
        ("夜班费用是多少？", "文档原文（未询问语言模型）：", "夜班费用为每班十二欧元。",
         "手册.md, p. 2"),
    ],
)  # fmt: skip
def test_without_a_language_model_the_documents_speak(
    command, place, question, header, sentence, source
):
    done = command("ask", question, "--index", place, "--no-llm")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    number = lines[2].removeprefix(sentence).strip()
    assert lines[:3] == [header, "", f"{sentence} {number}"]
    assert f"{number} {source}" in lines
    found = command("ask", question, "--index", place, "--no-llm", "--json").json
    assert (found["status"], found["usage"]["output_tokens"]) == ("quoted", 0)
    weak = command("ask", question, "--index", place, "--no-llm", "--min-score", "0.99").out
    assert "No passage is close enough" in weak
    assert sentence not in weak


def test_who_has_no_language_model_is_told_what_works_without(command, place):
    done = command("ask", NIGHT, "--index", place)
    assert (done.code, done.out) == (2, "")
    assert "--no-llm" in done.err
