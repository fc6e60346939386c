"""A causal language model in this process: a real one, of random weights, made in the test."""

import asyncio
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from embedtune.errors import ConfigError, IntegrityError, ServiceError
from embedtune.llm import ChatFault, ChatRequest
from embedtune.llm.local import LocalChat, find_model
from embedtune.llm.recorded import LLMSettings, RecordedChat, open_chat
from embedtune.store import Store

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
NO_SYSTEM = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}<{{ message['content'] }}>{% endfor %}"
)


def make_model(folder, template=None, window=256):
    """A GPT-2 of 2 layers over letters, digits, a little Chinese and an end token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = [*"abcdefghijklmnopqrstuvwxyz0123456789 .,:?!()[]{}<>\"'\n", *"费用机器人"]
    vocabulary = {text: index for index, text in enumerate(["<end>", "<unk>", *alphabet])}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<end>", unk_token="<unk>", model_max_length=window
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=window, n_embd=32, n_layer=2, n_head=2,
        bos_token_id=0, eos_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("lm") / "tiny-lm")


def requests(count, **fields):
    return [
        ChatRequest("system", f"request {number} " + "x " * (7 * number % 40),
                    **{"max_tokens": 12, **fields})
        for number in range(count)
    ]  # fmt: skip


def answers(model, asked):
    async def main():
        try:
            return await asyncio.gather(*map(model.ask, asked))
        finally:
            await model.close()

    return asyncio.run(main())


def local(folder, **settings):
    return LocalChat(str(folder), dtype="float32", **settings)


def test_an_answer_depends_neither_on_its_neighbours_nor_on_their_number(folder):
    asked = requests(9) + requests(3, temperature=0.0)
    together = answers(local(folder, together=5), asked)
    alone = [answers(local(folder, together=1), [request])[0] for request in asked]
    backwards = answers(local(folder, together=12), asked[::-1])[::-1]
    assert [a.text for a in together] == [a.text for a in alone] == [a.text for a in backwards]
    assert len({answer.text for answer in together}) > 8


def test_without_temperature_the_likeliest_tokens_are_taken(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (answer,) = answers(local(folder), [ChatRequest("be brief", "a?", max_tokens=8, temperature=0)])
    tokens = tokenizer("be brief\n\na?\n\n")["input_ids"]
    assert answer.input_tokens == len(tokens) == 14
    expected = []
    for _ in range(8):
        likeliest = int(model(torch.tensor([tokens + expected])).logits[0, -1].argmax())
        if likeliest == 0:
            break
        expected.append(likeliest)
    assert answer.text == tokenizer.decode(expected)


def test_the_temperature_draws_with_the_probabilities_of_the_model(folder):
    """First tokens of 400 different requests that end alike, against the softmax."""
    import torch
    from scipy.stats import chi2
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    asked = [
        ChatRequest("", f"{number:03}", max_tokens=1, temperature=0.5) for number in range(400)
    ]
    found = answers(local(folder, together=64), asked)
    expected = torch.zeros(len(tokenizer))
    for request in asked:
        tokens = tokenizer(f"\n\n{request.user}\n\n", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected += torch.softmax(model(tokens).logits[0, -1] / 0.5, -1)
    counts = torch.zeros(len(tokenizer))
    for answer in found:
        counts[tokenizer(answer.text)["input_ids"][0] if answer.text else 0] += 1
    often = expected >= 5
    distance = (((counts - expected) ** 2 / expected)[often]).sum()
    freedom = int(often.sum())
    assert freedom >= 8
    assert distance < chi2.ppf(0.999, freedom)


def test_an_answer_that_reaches_its_limit_is_told_as_cut(folder):
    for answer in answers(local(folder), requests(12, max_tokens=5)):
        assert answer.output_tokens <= 5
        assert (answer.finish == "length") == (answer.output_tokens == len(answer.text) == 5)


def test_limits_differ_within_a_batch(folder):
    asked = [
        ChatRequest("s", "one question", max_tokens=most, temperature=0) for most in (3, 9, 20)
    ]
    found = answers(local(folder, together=3), asked)
    longest = found[2].text
    assert [answer.text for answer in found[:2]] == [longest[:3], longest[:9]]


def test_a_prompt_beyond_the_window_is_refused_and_the_others_answered(folder):
    asked = [ChatRequest("s", "x" * 300), ChatRequest("s", "short", max_tokens=1000)]

    async def main():
        return await asyncio.gather(*map(local(folder).ask, asked), return_exceptions=True)

    refused, answer = asyncio.run(main())
    assert isinstance(refused, ChatFault)
    assert (refused.kind, refused.code) == ("request", "passage-too-long")
    assert answer.output_tokens <= 256 - answer.input_tokens


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        (None, "be brief\n\na?\n\n"),
        (TEMPLATE, "[system]be brief[user]a?[assistant]"),
        (NO_SYSTEM, "<be brief\n\na?>"),
    ],
)
def test_the_prompt_goes_through_the_models_own_template(tmp_path, template, prompt):
    model = local(make_model(tmp_path / "m", template))
    (answer,) = answers(model, [ChatRequest("be brief", "a?", max_tokens=2)])
    assert answer.input_tokens == len(prompt)
    tokens = model._loaded.prompt(ChatRequest("be brief", "a?"))
    assert model._loaded._tokenizer.decode(tokens) == prompt


def test_recorded_answers_of_a_local_model_cost_nothing_and_are_kept(folder, tmp_path):
    settings = LLMSettings(
        provider="local", model=str(folder), timeout=0.001, concurrency=4,
        local={"together": 3, "threads": 1, "dtype": "float32"},
    )  # fmt: skip
    with Store(tmp_path / "s") as store:
        first = RecordedChat(open_chat(settings), store, settings)
        texts = [reply.answer.text for reply in first.ask_all(requests(7))]  # slower than timeout
        again = RecordedChat(open_chat(settings), store, settings)
        assert [reply.answer.text for reply in again.ask_all(requests(7))] == texts
    assert first.usage.usd == 0
    assert again.usage.new == 0
    assert first.provider == "local"


def test_the_name_changes_with_the_weights_and_not_with_the_place(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    assert LocalChat(str(copy)).name == LocalChat(str(folder)).name
    assert LocalChat(str(copy), dtype="float32").name != LocalChat(str(copy)).name
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert LocalChat(str(copy)).name != LocalChat(str(folder)).name


def test_a_folder_without_a_model_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.json and weights"):
        LocalChat(str(tmp_path))
    with pytest.raises(ConfigError, match="no such folder"):
        LocalChat("./nowhere")
    with pytest.raises(ConfigError, match="LLM_MODEL"):
        LocalChat()


def test_damaged_weights_stop_the_run_with_their_place(folder, tmp_path):
    import shutil

    copy = shutil.copytree(folder, tmp_path / "cut")
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    settings = LLMSettings(provider="local", model=str(copy))
    with Store(tmp_path / "s") as store, pytest.raises(IntegrityError, match="cut: cannot be"):
        RecordedChat(open_chat(settings), store, settings).ask_all(requests(3))


def test_weights_that_are_no_numbers_are_not_listened_to(folder, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.nn.init.constant_(model.transformer.h[1].mlp.c_fc.weight, float("nan"))
    model.save_pretrained(tmp_path / "nan")
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path / "nan")
    settings = LLMSettings(provider="local", model=str(tmp_path / "nan"))
    with Store(tmp_path / "s") as store, pytest.raises(IntegrityError, match="are damaged"):
        RecordedChat(open_chat(settings), store, settings).ask_all(requests(3))


def test_a_name_that_is_nowhere_here_says_where_was_looked(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    with pytest.raises(ServiceError, match="HF_HUB_OFFLINE"):
        find_model("nobody/no-such-model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    begun = time.monotonic()
    with pytest.raises(ServiceError, match="cannot be reached"):
        find_model("nobody/no-such-model")
    assert time.monotonic() - begun < 30
    with pytest.raises(ConfigError, match="neither a folder nor a name"):
        find_model("two words/model")


def test_a_model_in_the_modelscope_cache_is_found(monkeypatch, tmp_path, folder):
    import shutil

    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path))
    place = tmp_path / "hub" / "models" / "somebody" / "tiny-1___5"
    shutil.copytree(folder, place)
    assert find_model("somebody/tiny-1.5").folder == place


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as serves one model."""

    protocol_version = "HTTP/1.1"
    folder: Path
    paths: list[str] = []  # noqa: RUF012

    def do_HEAD(self):
        self.paths.append(self.path)
        name = self.path.rpartition("/")[2]
        if self.path.startswith("/api/models/somebody/tiny/tree/"):
            files = [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0"}
                     for path in sorted(self.folder.iterdir())]  # fmt: skip
            body = json.dumps(files).encode()
        elif self.path.startswith("/api/models/somebody/tiny"):
            files = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
            body = json.dumps({"id": "somebody/tiny", "sha": "c" * 40, "siblings": files}).encode()
        elif self.path.startswith("/somebody/tiny/resolve/") and (self.folder / name).is_file():
            body = (self.folder / name).read_bytes()
        else:
            body = b""
        self.send_response(200 if body else 404)
        if not body:
            self.send_header("x-error-code", "RepoNotFound")
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", f'"{name}"')
        self.send_header("x-repo-commit", "c" * 40)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, *_):
        pass


FETCH = """
import sys
from embedtune.errors import EmbedtuneError
from embedtune.llm.local import LocalChat, fetched

try:
    for _ in range(2):
        model = LocalChat(sys.argv[1])
        new = model.found.folder is None
        print(model.name, new, (fetched(model.found) / "config.json").exists())
except EmbedtuneError as error:
    print(error.exit_code, error)
"""


def test_a_model_at_the_hub_is_fetched_once_and_not_before_it_is_asked(tmp_path, folder):
    Hub.folder = folder
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
           "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "MODELSCOPE_CACHE": str(tmp_path),
           "HF_HUB_DISABLE_XET": "1"}  # fmt: skip

    def child(name):
        done = subprocess.run([sys.executable, "-c", FETCH, name], env=own,
                              capture_output=True, text=True, check=True)  # fmt: skip
        return done.stdout.splitlines()

    name = f"local:somebody/tiny@{'c' * 16}"
    assert child("somebody/tiny") == [f"{name} True True", f"{name} False True"]
    assert sum(path.endswith("model.safetensors") for path in Hub.paths) <= 2  # HEAD and GET
    (told,) = child("somebody/else")
    server.shutdown()
    server.server_close()
    assert told.startswith("2 llm.model: somebody/else")
    assert "the hub has no such model" in told


def test_a_generation_under_way_ends_when_nobody_waits_for_it_any_more(tmp_path):
    endless = make_model(tmp_path / "endless", window=200_000)
    config = json.loads((endless / "generation_config.json").read_text())
    config["eos_token_id"] = [10_000]  # which it does not know
    (endless / "generation_config.json").write_text(json.dumps(config))
    model = local(endless, together=1)
    begun = threading.Event()
    answers_of = model._answers
    model._answers = lambda part: (begun.set(), answers_of(part))[1]

    async def main():
        asking = [
            asyncio.ensure_future(model.ask(ChatRequest("s", str(n), max_tokens=100_000)))
            for n in range(3)
        ]
        while not begun.is_set():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        for task in asking:
            task.cancel()
        await asyncio.wait(asking)
        # each answer would take many minutes
        await asyncio.wait_for(model.close(), 60)
        return [task.cancelled() for task in asking]

    assert asyncio.run(main()) == [True] * 3
