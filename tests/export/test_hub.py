"""Models and data sets to a hub and back, over HTTP, with the client that everybody uses."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from embedtune.embed.checks import write_checksums
from embedtune.embed.opening import open_embedder
from embedtune.export.hub import pack_dataset, pack_model
from embedtune.files import sha256_of, write_json, write_jsonl, write_text
from embedtune.pipeline.judge import Judgement
from embedtune.pipeline.stored import (
    DATASET,
    EVALUATION,
    TRAINING,
    Dataset,
    save_dataset,
    save_judgement,
)
from embedtune.records import Chunk, Query, RetrievalSet
from embedtune.results import Difference, SystemScores, Verdict
from embedtune.retrieve.fusion import Fusion
from embedtune.run import Recipe, RunDirectory

SPEC = importlib.util.spec_from_file_location("fake_hub", Path(__file__).with_name("fake_hub.py"))
fake_hub = sys.modules["fake_hub"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fake_hub)

TOKEN = "hf_secret"
NAME = "ann/handbook"
TEXTS = ["how does the robot stop in mud?", "battery fee of the night shift", "机器人电池夜班费用"]
MODEL_FILES = {
    "1_Pooling/config.json", "2_Normalize/config.json", "config.json", "modules.json",
    "config_sentence_transformers.json", "model.safetensors", "sentence_bert_config.json",
    "tokenizer.json", "tokenizer_config.json",
}  # fmt: skip


@pytest.fixture
def hub():
    with fake_hub.FakeHub().open() as served:
        yield served


@pytest.fixture
def push(hub, command, monkeypatch, tmp_path):
    """``embedtune push`` in this process, which imported the hub's client switched off."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-login"))

    def run(*arguments, token=TOKEN, address=hub.url):
        result = command("push", *arguments, env={"HF_ENDPOINT": address, "HF_TOKEN": token})
        if token:
            assert token not in result.out + result.err
        return result

    return run


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A model folder of one's own, with all sorts of things beside it."""
    own = shutil.copytree(tiny_model, tmp_path / "model")
    for name in ("checkpoint-10/model.safetensors", ".cache/x.json", "answers.sqlite",
                 "optimizer.pt", "training_args.bin", ".env", "manifest.json"):  # fmt: skip
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_text("{}")
    return own


def make_run(path, model, verdict="ship", language="en"):
    """A run directory with a data set, a model and a verdict."""
    chunks = (
        Chunk(id="c1", document="d1", start=0, end=20, title="", text="robots stop in mud",
              language="en", source="mud.md"),
        Chunk(id="c2", document="d2", start=0, end=8, title="电池", text="夜班电池费用",
              section=("电池",), language="zh", source="电池.md"),
    )  # fmt: skip
    queries = (Query(id="q1", text="stuck in mud"), Query(id="q2", text="电池多少钱"))
    qrels = {"train": {"q1": {"c1": 1}}, "test": {"q2": {"c2": 1}}}
    data = RetrievalSet("small", chunks, queries, qrels)

    def data_step(out):
        save_dataset(out, Dataset(data, (), {"c1": "d1", "c2": "d2"}, "document", False, ()))
        return {}

    def train_step(out):
        shutil.copytree(model, out / "model")
        write_json(out / "model" / "embedtune.json", {"base": "/home/ann/models/first/"})
        write_jsonl(out / "history.jsonl", [{"step": 4, "dev": 0.6}])
        return {"base": "/home/ann/models/first", "trained": True, "notes": [], "alpha": 0.8,
                "best_step": 4, "best_score": 0.6, "base_score": 0.4,
                "plan": {"pairs": 7}}  # fmt: skip

    def judge_step(out):
        systems = tuple(
            SystemScores(name, "dense", {"ndcg@10": score}, {"ndcg@10": {"q2": score}}, {})
            for name, score in (("base", 0.4), ("tuned", 0.6))
        )
        found = Verdict(verdict, ("Because of the figures.",), "tuned", "base", "base",
                        {"base": Difference(0.2, 0.1, 0.3, 0.01, 0.02, 1, 1)})  # fmt: skip
        save_judgement(out, Judgement(found, systems, "test", (), Fusion(), "dev", {}))
        return {}

    with RunDirectory(path) as run:
        write_text(run.path / "config.yaml", f"report: {{language: {language}}}\n")
        given = run.stage(DATASET, Recipe("given", 1), data_step)
        recipe = Recipe("train", 1, {"training": {"seed": 1}}, inputs={"dataset": given.digest})
        trained = run.stage(TRAINING, recipe, train_step)
        if verdict:
            inputs = {"training": trained.digest}
            run.stage(EVALUATION, Recipe("evaluate", 1, inputs=inputs), judge_step)
    write_text(path / "answers.sqlite", "paid for")
    return path


def fetched(hub, tmp_path, name=NAME, **more):
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, endpoint=hub.url, token=TOKEN,
                                  cache_dir=tmp_path / "fetched", **more))  # fmt: skip


# ---- what arrives


def test_a_pushed_model_is_fetched_again_and_gives_the_same_vectors(push, hub, folder, tmp_path):
    write_json(folder / "embedtune.json", {"base": str(tmp_path / "first")})
    write_checksums(folder)
    result = push(folder, NAME, "--json")
    assert result.code == 0, result.err
    own = hub.repositories["model", NAME]
    assert own.private
    files = {*MODEL_FILES, "embedtune.json", "SHA256SUMS"}
    assert set(own.files) == files
    weights = sha256_of(folder / "model.safetensors")
    assert set(hub.large) == {weights}  # by the protocol of large files, checked there
    told = result.json
    assert {file["path"]: file["bytes"] for file in told["files"]} == {
        path: len(content) for path, content in own.files.items()
    }
    assert told["bytes"] == sum(map(len, own.files.values()))
    assert told["commit"] == own.at("main").sha
    assert (told["private"], told["created"], told["changed"]) == (True, True, True)
    assert told["left_out"] == [".cache/", ".env", "answers.sqlite", "checkpoint-10/",
                                "manifest.json", "optimizer.pt", "training_args.bin"]  # fmt: skip
    there = fetched(hub, tmp_path)
    listed = (there / "SHA256SUMS").read_text().splitlines()
    assert {line.split("  ")[1] for line in listed} == files - {"SHA256SUMS"}
    assert (there / "model.safetensors").resolve().name == weights
    before = open_embedder(str(folder), device="cpu").embed(TEXTS, "document")
    after = open_embedder(str(there), device="cpu").embed(TEXTS, "document")
    np.testing.assert_array_equal(before, after)


def test_a_run_sends_its_model_with_a_card_that_holds_the_verdict(push, hub, tiny_model, tmp_path):
    run = make_run(tmp_path / "run", tiny_model)
    result = push(run, NAME)
    assert result.code == 0, result.err
    files = hub.repositories["model", NAME].files
    assert set(files) == {*MODEL_FILES, "embedtune.json", "README.md"}
    card = files["README.md"].decode()
    assert "**Ship the tuned model" in card
    assert f'SentenceTransformer("{NAME}")' in card
    assert yaml.safe_load(card.split("---\n")[1])["model-index"][0]["name"] == NAME
    # nothing tells where this machine keeps its models
    assert json.loads(files["embedtune.json"]) == {"base": "first"}
    for path, content in files.items():
        assert b"/home/ann" not in content, path
        assert str(tmp_path).encode() not in content, path
    assert "verdict ship" in result.err
    assert f"pushed to {NAME} (private): {hub.url}/" in result.out


def test_the_card_is_in_the_language_of_the_run(push, hub, tiny_model, tmp_path):
    assert push(make_run(tmp_path / "run", tiny_model, language="zh"), NAME).code == 0
    card = hub.repositories["model", NAME].files["README.md"].decode()
    assert any("一" <= letter <= "鿿" for letter in card)


def test_a_pushed_data_set_is_read_back_by_name(push, hub, tiny_model, tmp_path):
    run = make_run(tmp_path / "run", tiny_model)
    result = push(run, "team/questions", "--data", "--public", "--json")
    assert result.code == 0, result.err
    assert "split.json" in result.json["left_out"]
    own = hub.repositories["dataset", "team/questions"]
    assert not own.private
    assert set(own.files) == {"README.md", "corpus.jsonl", "queries.jsonl",
                              "qrels/test.jsonl", "qrels/test.tsv",
                              "qrels/train.jsonl", "qrels/train.tsv"}  # fmt: skip
    front = yaml.safe_load(own.files["README.md"].decode().split("---\n")[1])
    assert front["language"] == ["en", "zh"]
    code = (
        "from embedtune.datasets.source import read_source\n"
        "found = read_source('hf:team/questions').data\n"
        "print([c.text for c in found.chunks], [q.text for q in found.queries], found.qrels)\n"
    )
    assert python(hub, tmp_path, code) == (
        "['robots stop in mud', '夜班电池费用'] ['stuck in mud', '电池多少钱'] "
        "{'test': {'q2': {'c2': 1}}, 'train': {'q1': {'c1': 1}}}"
    )


def test_other_tools_load_the_data_set_by_its_card(push, hub, tiny_model, tmp_path):
    from datasets import load_dataset

    assert push(make_run(tmp_path / "run", tiny_model), "ann/data", "--data").code == 0
    there = fetched(hub, tmp_path, "ann/data", repo_type="dataset",
                    local_dir=tmp_path / "plain")  # fmt: skip
    loaded = load_dataset(str(there), cache_dir=str(tmp_path / "cache"))
    assert loaded["test"].to_list() == [{"query-id": "q2", "corpus-id": "c2", "score": 1}]
    corpus = load_dataset(str(there), "corpus", cache_dir=str(tmp_path / "cache"))["corpus"]
    assert corpus["text"] == ["robots stop in mud", "夜班电池费用"]


def python(hub, home, code, **variables):
    """Python in a process of its own, whose client is switched on."""
    env = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url,
           "HF_TOKEN": TOKEN, "HF_HOME": str(home / "hf"), "OMP_NUM_THREADS": "1",
           "PYTHONIOENCODING": "utf-8", **variables}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True,
                          text=True, encoding="utf-8", timeout=300)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_model_on_the_hub_is_evaluated_by_its_name(
    push, hub, child, folder, tmp_path, small_beir
):
    """The whole way: a name, ``HF_ENDPOINT``, a download, vectors. Model and data are private."""
    assert push(folder, NAME).code == 0
    assert push(small_beir, "ann/data", "--data").code == 0
    env = {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.url,
           "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "hf")}  # fmt: skip
    process = child("evaluate", NAME, "--data", "hf:ann/data", "--json",
                    "--set", "evaluation.probe=none", env=env)  # fmt: skip
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert NAME in [system["name"] for system in json.loads(out)["systems"]]
    assert f"GET /{NAME}/resolve/{hub.repositories['model', NAME].at('main').sha}/config.json" in (
        hub.calls
    )


# ---- what is there already


def test_a_repository_is_updated_and_its_other_files_stay(push, hub, folder):
    own = hub.add("model", NAME, {"LICENSE": b"MIT", "config.json": b"old"})
    result = push(folder, NAME, "--message", "Second try")
    assert result.code == 0, result.err
    assert "POST /api/repos/create" not in hub.calls
    assert own.files["LICENSE"] == b"MIT"
    assert own.files["config.json"] == (folder / "config.json").read_bytes()
    assert own.at("main").message == "Second try"
    assert "left as they are: LICENSE" in result.out


def test_what_is_there_already_is_not_committed_again(push, hub, folder):
    assert push(folder, NAME).code == 0
    before = hub.repositories["model", NAME].at("main").sha
    hub.calls.clear()
    result = push(folder, NAME)
    assert result.code == 0
    assert "has all of it already" in result.out
    assert hub.repositories["model", NAME].at("main").sha == before
    assert not [call for call in hub.calls if "/commit/" in call]


def test_a_branch_is_made_and_main_stays(push, hub, folder):
    own = hub.add("model", NAME, {"LICENSE": b"MIT"})
    for _ in range(2):  # the second time it is there
        assert push(folder, NAME, "--revision", "v2/next").code == 0
    assert set(own.files) == {"LICENSE"}
    assert set(own.branches["v2/next"][-1].files) >= {*MODEL_FILES, "LICENSE"}


def test_a_public_repository_gets_nothing_that_was_to_be_private(push, hub, folder):
    hub.add("model", NAME, private=False)
    result = push(folder, NAME)
    assert result.code == 2
    assert "it is public" in result.err
    assert "--public" in result.err
    assert not hub.wrote()
    assert push(folder, NAME, "--public").code == 0


def test_a_private_repository_stays_private_and_that_is_said(push, hub, folder):
    own = hub.add("model", NAME, private=True)
    result = push(folder, NAME, "--public", "--json")
    assert (result.code, result.json["private"]) == (0, True)
    assert own.private
    assert "stays so" in result.err


def test_a_hub_that_makes_public_what_was_to_be_private_gets_nothing(push, hub, folder):
    hub.ignores_private = True
    result = push(folder, NAME)
    assert result.code == 2
    assert "the hub made it public" in result.err
    assert hub.repositories["model", NAME].files == {}


def test_a_commit_by_someone_else_in_the_meantime_is_not_written_over(push, hub, folder):
    own = hub.add("model", NAME)
    true_preupload = fake_hub._Handler._preupload

    def someone_else(handler, *arguments):
        true_preupload(handler, *arguments)
        last = own.at("main")
        files = {**last.files, "config.json": fake_hub.Blob(b"{}")}
        own.branches["main"].append(fake_hub.Commit("theirs", files, last.sha))

    fake_hub._Handler._preupload = someone_else
    try:
        result = push(folder, NAME)
    finally:
        fake_hub._Handler._preupload = true_preupload
    assert result.code == 5
    assert "was changed while this was sent" in result.err
    assert own.files["config.json"] == b"{}"


# ---- what is refused


@pytest.mark.parametrize(
    ("path", "method", "status", "said"),
    [
        ("/api/models", "GET", 401, "the token is not valid"),
        ("/api/repos/create", "POST", 403, "the token may not write"),
        ("/preupload/", "POST", 404, "no such repository or branch"),
        ("/commit/", "POST", 409, "someone else changes"),
        ("/commit/", "POST", 413, "larger than the hub takes"),
        ("/api/models", "GET", 429, "too many requests"),
        ("/commit/", "POST", 500, "the hub has a problem; run the same command again"),
        ("/api/repos/create", "POST", 503, "the hub has a problem"),
        ("/large/", "PUT", 403, "the token may not write"),
    ],
)
def test_an_answer_of_the_hub_that_is_no_success_is_told(
    push, hub, folder, path, method, status, said
):
    hub.failures.append(fake_hub.Failure(path, status, f"because of {TOKEN}", method=method))
    result = push(folder, NAME)
    assert result.code == 5, result.err
    assert said in result.lines[-1]
    assert f"answered {status}" in result.lines[-1]
    own = hub.repositories.get(("model", NAME))
    assert own is None or own.files == {}


def test_after_a_failure_the_same_command_goes_on(push, hub, folder):
    hub.failures.append(fake_hub.Failure("/commit/", 500, times=1))
    assert push(folder, NAME).code == 5
    hub.calls.clear()
    assert push(folder, NAME).code == 0
    assert not [call for call in hub.calls if call.startswith("PUT")]  # the weights are there
    assert set(hub.repositories["model", NAME].files) == MODEL_FILES


@pytest.mark.parametrize(("token", "said"), [("hf_wrong", "not valid"), ("read-only", "may not")])
def test_a_token_that_may_not_is_refused(push, hub, folder, token, said):
    result = push(folder, NAME, token=token)
    assert result.code == 5
    assert said in result.lines[-1]
    assert not hub.repositories


def test_without_a_token_it_says_what_to_do(push, hub, folder):
    result = push(folder, NAME, token="")
    assert result.code == 2
    assert "HF_TOKEN" in result.err
    assert "hf auth login" in result.err
    assert not hub.calls
    assert push(folder, NAME, token="hf_密").code == 2


def test_a_repository_of_others_is_refused(push, hub, folder):
    hub.add("model", "eve/secret")
    for name in ("eve/secret", "eve/new"):
        result = push(folder, name)
        assert (result.code, "may not write" in result.err) == (5, True)
    assert hub.repositories["model", "eve/secret"].files == {}


def test_a_hub_that_is_not_there_is_said(push, hub, folder):
    hub.server.server_close()  # nobody listens
    result = push(folder, NAME)
    assert result.code == 5
    assert f"{hub.url} cannot be reached" in result.lines[-1]


@pytest.mark.parametrize("address", ["hub.example", "ftp://hub.example", "https://a:b@hub.example"])
def test_an_address_that_is_none_is_refused(push, folder, address):
    result = push(folder, NAME, address=address)
    assert result.code == 2
    assert "HF_ENDPOINT" in result.err


def test_a_switched_off_hub_is_said(push, folder, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = push(folder, NAME)
    assert (result.code, "HF_HUB_OFFLINE" in result.err) == (2, True)


def test_a_card_that_the_hub_refuses_is_said(push, hub, folder):
    (folder / "README.md").write_text("---\nlanguage: [english]\n---\n# Mine\n")
    result = push(folder, NAME)
    assert result.code == 2
    assert '"language" is wrong' in result.err
    assert "mend README.md" in result.err


@pytest.mark.parametrize("name", ["handbook", "a/b/c", "ann/..", "ann/手册", "ann/" + "x" * 100])
def test_a_name_that_no_hub_has_is_refused_before_it_is_asked(push, hub, folder, name):
    result = push(folder, name)
    assert (result.code, "expected OWNER/NAME" in result.err) == (2, True)
    assert push(folder, NAME, "--revision", "../main").code == 2
    assert not hub.calls


def test_a_damaged_model_is_not_pushed(push, hub, folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert push(folder, NAME).code == 7
    assert not hub.calls


def test_a_run_whose_model_was_changed_is_not_pushed(push, hub, tiny_model, tmp_path):
    run = make_run(tmp_path / "run", tiny_model)
    (run / TRAINING / "model" / "config_sentence_transformers.json").write_text("{}")
    result = push(run, NAME)
    assert (result.code, "was changed after" in result.err) == (7, True)
    assert not hub.calls


@pytest.mark.parametrize("inside", ["", f"{TRAINING}/model"], ids=["run", "model of the run"])
def test_a_verdict_against_it_stops_a_push_unless_anyway(push, hub, tiny_model, tmp_path, inside):
    run = make_run(tmp_path / "run", tiny_model, verdict="do-not-ship")
    result = push(run / inside, NAME)
    assert result.code == 2
    assert "do-not-ship" in result.err
    assert "Because of the figures." in result.err
    assert not hub.calls
    assert push(run / inside, NAME, "--anyway").code == 0
    assert "**Do not ship" in hub.repositories["model", NAME].files["README.md"].decode()


def test_a_run_without_verdict_or_model_says_so(push, hub, tiny_model, tmp_path):
    run = make_run(tmp_path / "run", tiny_model, verdict="")
    result = push(run, NAME)
    assert (result.code, "not evaluated yet" in result.err) == (2, True)
    assert push(run, NAME, "--anyway", "--dry-run").code == 0
    shutil.rmtree(run / TRAINING)
    assert push(run, NAME).code == 3
    assert push(tmp_path / "nowhere", NAME).code == 2
    shutil.rmtree(run / DATASET)
    assert push(run, NAME, "--data").code == 3
    assert not hub.calls


def test_a_dry_run_needs_neither_network_nor_token(push, hub, tiny_model, tmp_path):
    run = make_run(tmp_path / "run", tiny_model)
    result = push(run, NAME, "--dry-run", "--revision", "v2", token="")
    assert result.code == 0, result.err
    assert f"to {hub.url}/{NAME} (model, private, branch v2, verdict ship)" in result.out
    size = (run / TRAINING / "model" / "model.safetensors").stat().st_size
    assert f"{size:,}  model.safetensors" in result.out
    assert "nothing was sent" in result.out
    told = push(run, NAME, "--dry-run", "--json", token="").json
    assert (told["dry_run"], told["commit"], told["url"]) == (True, None, None)
    assert not hub.calls


def test_r02_names_show_what_is_hidden_in_them(push, folder):
    (folder / "a\x1b[31m\u202e.json").write_text("{}")
    (folder / "b\x1b[31m.log").write_text("{}")
    result = push(folder, NAME, "--dry-run")
    assert result.code == 0
    assert "\x1b" not in result.out
    assert "\u202e" not in result.out
    assert result.out.count("x1b") == 2


def test_an_export_that_is_not_good_stays_here_unless_anyway(push, hub, tmp_path):
    """No graph is needed: what is said of it decides."""
    own = tmp_path / "graph"
    own.mkdir()
    (own / "model.onnx").write_bytes(b"graph")
    facts = {
        "source": "/home/ann/model", "revision": "1", "engine": "onnxruntime",
        "precision": "int8", "graph": "model.onnx", "inputs": ["input_ids"], "dimension": 32,
        "sha256": {"model.onnx": sha256_of(own / "model.onnx")}, "max_tokens": 64,
        "lengths": {"query": 64, "document": 64}, "prompts": {"query": "", "document": ""},
        "control_tokens_as_text": True, "pad_token": 0, "pooling": "mean", "normalised": True,
        "similarity": "cosine",
        "check": {"outcome": "not good", "reasons": ["min cosine 0.4"], "texts": 9,
                  "min_cosine": 0.4, "mean_cosine": 0.9},
    }  # fmt: skip
    write_json(own / "embedtune_onnx.json", facts)
    write_checksums(own)
    result = push(own, NAME)
    assert (result.code, "min cosine 0.4" in result.err) == (2, True)
    assert not hub.calls
    assert push(own, NAME, "--anyway").code == 0
    sent = hub.repositories["model", NAME].files
    assert set(sent) == {"model.onnx", "embedtune_onnx.json", "SHA256SUMS"}
    assert json.loads(sent["embedtune_onnx.json"])["source"] == "model"
    (own / "model.onnx").write_bytes(b"other")
    assert push(own, NAME, "--anyway").code == 7


# ---- what goes out


def test_links_that_lead_outside_stay_here(folder, tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    (folder / "notes.json").symlink_to(tmp_path / "secret.json")
    (folder / "more").symlink_to(tmp_path)
    (folder / "same.json").symlink_to("config.json")
    parcel = pack_model(folder)
    assert {"notes.json", "more"} <= set(parcel.left_out)
    assert "same.json" in {file.path for file in parcel.files}


def test_checksums_are_those_of_what_is_sent(folder):
    write_json(folder / "embedtune.json", {"base": "~/models/first", "prompt": "a/b: "})
    names = ("config.json", "embedtune.json", "manifest.json")
    sums = "".join(f"{sha256_of(folder / name)}  {name}\n" for name in names)
    (folder / "SHA256SUMS").write_text(sums)
    sent = {file.path: file.source for file in pack_model(folder, "# Card\n").files}
    assert json.loads(sent["embedtune.json"]) == {"base": "first", "prompt": "a/b: "}
    lines = sent["SHA256SUMS"].decode().splitlines()
    assert lines[0] == sums.splitlines()[0]  # sent as it is
    assert lines[1:] == [f"{hashlib.sha256(sent['embedtune.json']).hexdigest()}  embedtune.json"]


def test_of_a_data_set_only_its_layout_goes_out(small_beir, tmp_path):
    own = shutil.copytree(small_beir, tmp_path / "data")
    for name in ("qrels/.test.tsv", "qrels/old/test.tsv", "answers.sqlite", "corpus.jsonl.bak"):
        (own / name).parent.mkdir(exist_ok=True)
        (own / name).write_text("x")
    parcel = pack_dataset(own, {"README.md": b"# Card\n"})
    assert [file.path for file in parcel.files] == [
        "README.md", "corpus.jsonl", "qrels/dev.tsv", "qrels/test.tsv", "qrels/train.tsv",
        "queries.jsonl",
    ]  # fmt: skip
    assert len(parcel.left_out) == 4
