"""A language model that is none: an OpenAI-compatible server that answers by rule.

    python benchmarks/stub_server.py --port 8099 --latency-ms 300 --places 64
    python benchmarks/stub_server.py --faults 0.2 --log billed.jsonl

It reads the passage from embedtune's prompt and asks about its weightiest sentences, in English
or Chinese, so that the whole way from documents to verdict runs over real HTTP without a model.
Embeddings are hashed character 3-grams. Faults hit a request by a hash of its passage, on its
first try only (``--stubborn``: always). Batches are worked through when they are looked at, their
answers come in another order. Standard library only; tests use `StubServer`.
"""

import argparse
import hashlib
import json
import math
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

DIMENSION = 256
FAULTS = (
    "429", "429-seconds", "429-date", "500", "503", "reset", "empty-body", "html", "not-json",
    "no-choices", "no-content", "cut-body", "trickle", "refusal", "filtered", "length",
    "too-many", "too-few", "no-schema", "surrogate", "fenced", "bad-usage",
)  # fmt: skip

USELESS = ("no-choices", "no-content", "trickle")  # billed, and yet to be asked for again


# ---- answering by rule

STOPWORDS = frozenset(
    """a about above after all also an and any are as at be because been before being below between
    both but by can cannot could did do does down during each either few for from further had has
    have he her here him his how however if in into is it its just may me might more most must my
    neither no nor not now of off on once one only or other our out over own per same shall she
    should so some such than that the their them then there these they this those through thus to
    too two under until up upon us very was we were what when where which while who whom whose why
    will with within without would yes you your""".split()  # noqa: SIM905
)
# Chinese is cut at words that carry little meaning; what is left between them is a term.
CHINESE_CUTS = re.compile(
    r"应当|不得|可以|以及|或者|并且|但是|如果|因为|所以|对于|关于|按照|根据|通过|进行|其他|其中"
    r"|以上|以下|需要|必须|已经|没有|违反|本法|规定"
    r"|[的了在是和与及或等对为以由于被将其之不也都就而并但如若从到向把让给]"
    r"|[这那该此各每有无可能会应且则即所者时]"
)
HAN = re.compile(r"[\u3400-\u9fff]")
SENTENCE = re.compile(r"[^。！？!?\n.]*(?:\.(?!\s|$)[^。！？!?\n.]*)*(?:[。！？!?.]|\n|$)")

FRAMES: dict[tuple[str, str], tuple[str, ...]] = {
    ("en", "question"): (
        "What applies to {a} with regard to {b}?", "How is {b} handled when it comes to {a}?",
        "Which rule covers {a} and {b}?", "What should I know about {b} of the {a}?",
        "Where does {a} matter for {b}?", "Who decides on {a} in connection with {b}?",
    ),
    ("en", "keywords"): ("{a} {b}", "{b} {a} {c}", "{c} {a}", "{a} rules {b}"),
    ("en", "colloquial"): (
        "so whats the deal with {a} and {b}", "anyone know how {b} works with {a}??",
        "need info on {a}, {b} too if possible", "is {b} a thing for {a}",
    ),
    ("en", "scenario"): (
        "I have to deal with {a} this week. What do I need to check about {b}?",
        "A colleague asked me about {b}. What does that mean for {a}?",
        "We are planning around {a} and {c}. How does {b} come into it?",
    ),
    ("zh", "question"): (
        "{a}在{b}方面有什么规定？", "关于{a}，{b}应如何处理？", "{b}和{a}之间有什么关系？",
        "遇到{a}时，{b}怎么办？", "{a}涉及哪些{b}？",
    ),
    ("zh", "keywords"): ("{a} {b}", "{b} {c} {a}", "{a} {c} 规定"),
    ("zh", "colloquial"): (
        "{a}这块儿{b}到底怎么弄", "想问下{b}，跟{a}有关的", "{a}的话{b}要咋办呀",
    ),
    ("zh", "scenario"): (
        "我们最近在办{a}的事情，牵涉到{b}。应该注意什么？",
        "客户问起{b}，又提到{a}。怎么答复才对？",
    ),
}  # fmt: skip


def number_of(*parts: object) -> int:
    """A stable number from a hash of ``parts``."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big")


def passage_of(prompt: str) -> str:
    """What stands between the first two equal lines ``===== … =====`` of embedtune's prompt."""
    found = re.search(r"^(={3,} .+ ={3,})\n(.*?)\n\1$", prompt, re.DOTALL | re.MULTILINE)
    return found[2] if found else prompt


def styles_of(prompt: str) -> list[str]:
    return re.findall(r"^\d+\. (question|keywords|colloquial|scenario):", prompt, re.MULTILINE)


def terms_of(sentence: str, language: str) -> list[str]:
    """Terms by weight: runs of up to three content words, or what Chinese cuts leave over."""
    if language == "zh":
        plain = re.sub(
            r"第[一二三四五六七八九十百千〇零\d]+[条章节款项]|[\d〇]+年|[\d〇]+[月日]",
            " ",
            sentence,
        )
        parts = re.findall(r"[\u3400-\u9fff]+|[A-Za-z0-9]+", CHINESE_CUTS.sub(" ", plain))
        terms = [part[-6:] for part in parts if len(part) > 1]
    else:
        runs: list[list[str]] = [[]]
        for token in re.findall(r"[A-Za-z][A-Za-z0-9'’-]*|[^\s\w]", sentence):
            if token.lower() in STOPWORDS or not token[0].isalpha() or len(runs[-1]) == 3:
                runs.append([])
            if token[0].isalpha() and token.lower() not in STOPWORDS:
                runs[-1].append(token)
        terms = [" ".join(run) for run in runs if run and len(" ".join(run)) > 3]
    weighed = {term: min(len(term), 20) + number_of(sentence, term) % 6 for term in terms}
    ranked = sorted(weighed, key=lambda term: (-weighed[term], term))
    return [
        term for place, term in enumerate(ranked)
        if not any(term in other or other in term for other in ranked[:place])
    ]  # fmt: skip


def questions(passage: str, styles: Sequence[str]) -> list[dict[str, str]]:
    """One query a style, each about another sentence where there are enough of them."""
    language = "zh" if len(HAN.findall(passage)) * 5 > len(passage) else "en"
    sentences = [match[0].strip() for match in SENTENCE.finditer(passage)]
    ranked = sorted(
        ((terms, sentence) for sentence in dict.fromkeys(sentences)
         if len(terms := terms_of(sentence, language)) >= 3),
        key=lambda pair: (-min(len(pair[0]), 6), number_of(pair[1])),
    )  # fmt: skip
    asked = []
    for place, style in enumerate(styles):
        if not ranked:
            break
        terms, sentence = ranked[place % len(ranked)]
        pick = number_of(sentence, style, place)
        frame = FRAMES[language, style][pick % len(FRAMES[language, style])]
        a, b, c = (terms[(pick + step) % min(len(terms), 4)] for step in range(3))
        asked.append({"query": frame.format(a=a, b=b, c=c), "style": style, "evidence": sentence})
    return asked


def judgement(prompt: str) -> list[dict[str, Any]]:
    """The passage that shares most rare terms with the query, if it shares any."""
    query = re.search(r"^(?:Query: |查询：)(.+)$", prompt, re.MULTILINE)
    passages = re.split(r"^={3,} .+ ={3,}$", prompt, flags=re.MULTILINE)[1:]
    grams = _grams(query[1] if query else "")
    scored = [(sum((grams & _grams(text)).values()), -place) for place, text in enumerate(passages)]
    if not scored or max(scored)[0] < 3:
        return []
    best = -max(scored)[1]
    sentences = [match[0].strip() for match in SENTENCE.finditer(passages[best])]
    evidence = max(sentences, key=lambda sentence: sum((grams & _grams(sentence)).values()))
    return [{"passage": best + 1, "evidence": evidence}]


def _grams(text: str) -> Counter[str]:
    text = re.sub(r"\s+", " ", text.lower())
    return Counter(text[start : start + 3] for start in range(max(0, len(text) - 2)))


def embedding(text: str) -> list[float]:
    """Hashed character 3-grams, length 1."""
    vector = [0.0] * DIMENSION
    for gram, count in _grams(f" {text} ").items():
        vector[number_of(gram) % DIMENSION] += count
    norm = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / norm for value in vector]


# ---- the server


@dataclass
class Behaviour:
    """What the server does, changeable while it runs."""

    latency: float = 0.0  # seconds
    jitter: float = 0.0  # seconds at most, by a hash of the request
    places: int = 1024  # requests served at a time; the others queue
    reject: bool = False  # those above the places are refused with 429 instead
    faults: float = 0.0  # share of requests
    kinds: tuple[str, ...] = FAULTS
    stubborn: bool = False  # a chosen request fails on every try, not only the first
    retry_after: float = 1.0
    key: str = ""  # when given, others are refused with 401
    model: str = ""  # when given, others are refused with 404
    formats: tuple[str, ...] = ("json_schema", "json_object")  # others are refused with 400
    window: int = 1_000_000  # characters of a prompt; longer ones are refused with 400
    answer: Callable[[dict[str, Any]], str] | None = None  # instead of the rule
    trickle: float = 1.0  # seconds between two bytes
    streams: bool = True  # answers in pieces, when asked to
    pace: float = 0.0  # seconds between two pieces
    stream_end: str = "done"  # or cut, error: in the middle
    batch_seconds: float = 0.0  # from making a batch to its end
    batch_ends: tuple[str, ...] = ("completed",)  # of the first, the second, … and all others
    batch_errors: tuple[dict[str, Any], ...] = ()  # of a batch that failed
    batch_most: int = 50_000  # requests of batches in progress; more fail; 0: no Batch API at all
    batch_lost: int = 0  # so many batches are made without an answer that says so


@dataclass
class StubServer:
    """A running server, on a free port unless told; also a context manager."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    port: int = 0
    log: Path | None = None

    def __post_init__(self) -> None:
        self.requests: list[tuple[float, dict[str, Any]]] = []  # (monotonic seconds, body)
        self.billed: list[str] = []  # hash of each request whose answer went out
        self.served: list[str] = []  # of those, the ones whose answer had all that one has
        self.sent: Counter[str] = Counter()  # what went out: "answer" or the fault's name
        self.files: dict[str, bytes] = {}
        self.batches: list[dict[str, Any]] = []  # oldest first
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._places = threading.Semaphore(self.behaviour.places)
        server = self

        class Handler(_Handler):
            stub = server

        self._http = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def fault_of(self, request: str) -> str:
        """The fault this try of a request meets, or "": by a hash of its passage."""
        with self._lock:
            self._seen[request] += 1
            first = self._seen[request] == 1
        behaviour = self.behaviour
        if not behaviour.faults or not (first or behaviour.stubborn):
            return ""
        if number_of(request, "whether") % 10_000 >= behaviour.faults * 10_000:
            return ""
        return behaviour.kinds[number_of(request, "which") % len(behaviour.kinds)]

    def reply(self, body: dict[str, Any]) -> tuple[int, Any, str]:
        """(status, body, fault) of a request for a chat answer; it is billed if answered.

        Making up the answer is part of the latency, as far as it takes no longer.
        """
        begin, behaviour = time.monotonic(), self.behaviour
        format_asked = (body.get("response_format") or {}).get("type", "text")
        if format_asked not in (*behaviour.formats, "text"):
            said = f"response_format type {format_asked} is unavailable"
            return 400, error_body(said), "refused"
        prompt = "\n".join(str(message.get("content")) for message in body.get("messages", ()))
        if len(prompt) > behaviour.window:
            said = "This model's maximum context length is exceeded"
            return 400, error_body(said, "context_length_exceeded"), "refused"
        request = f"{number_of(json.dumps(body, sort_keys=True)):016x}"
        user = str(body["messages"][-1]["content"])
        # asking again in other words or with more room is another try of the same
        fault = self.fault_of(f"{body.get('temperature')} {number_of(passage_of(user))}")
        late = number_of(request, "slow") % 1000 / 1000
        end = begin + behaviour.latency + behaviour.jitter * late
        if fault in EARLY_FAULTS:
            self._pass_until(end, fault)
            status = {"500": 500, "503": 503}.get(fault, 429)
            return status, error_body("overloaded"), fault
        if behaviour.answer is not None:
            text = behaviour.answer(body)
        elif "judgement" in str(body.get("response_format")) or '"answers"' in prompt:
            text = json.dumps({"answers": judgement(user)}, ensure_ascii=False)
        else:
            asked = questions(passage_of(user), styles_of(user) or ["question", "keywords"])
            text = json.dumps({"queries": _bent(asked, fault)}, ensure_ascii=fault == "surrogate")
        finish = {"length": "length", "filtered": "content_filter"}.get(fault, "stop")
        if fault == "length":
            text = text[: len(text) // 2]
        message: dict[str, Any] = {"role": "assistant", "content": _wrapped(text, fault)}
        if fault == "refusal":
            message |= {"content": None, "refusal": "I can't help with that."}
        if fault == "no-content":
            message["content"] = None
        usage: Any = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(text) // 4,
                      "total_tokens": (len(prompt) + len(text)) // 4}  # fmt: skip
        if fault == "bad-usage":
            usage = {"prompt_tokens": "many", "completion_tokens": -1}
        answer = {
            "id": f"chatcmpl-{request}",
            "object": "chat.completion",
            "created": 0,
            "model": body.get("model"),
            "choices": [] if fault == "no-choices" else [
                {"index": 0, "message": message, "finish_reason": finish}],
            "usage": usage,
        }  # fmt: skip
        self._pass_until(end, fault)
        self.bill(request, str(body.get("model")), useful=fault not in USELESS)
        return 200, answer, fault

    def _pass_until(self, end: float, fault: str) -> None:
        time.sleep(max(0.0, end - time.monotonic()))
        with self._lock:
            self.sent[fault or "answer"] += 1

    # ---- batches

    def make_batch(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            waiting = sum(
                batch["request_counts"]["total"]
                for batch in self.batches
                if batch["status"] == "in_progress"
            )
            lines = self.files[asked["input_file_id"]].splitlines()
            batch = {
                "id": f"batch_{len(self.batches)}",
                "object": "batch",
                "status": "in_progress",
                "created_at": int(time.time()),
                "errors": None,
                "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
                **asked,
            }
            if waiting + len(lines) > self.behaviour.batch_most:
                batch["status"] = "failed"
                error = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}
                batch["errors"] = {"object": "list", "data": [{**error, "line": None}]}
            self.batches.append(batch)
            batch["_made"] = time.monotonic()
            return batch

    def look_at(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch as it is now told; it is worked through when its time has come."""
        with self._lock:
            due = time.monotonic() - batch["_made"] >= self.behaviour.batch_seconds
            begin = due and batch["status"] == "in_progress"
            if begin:
                batch["status"] = "finalizing"
        if begin:
            self._work_through(batch)
        return {name: value for name, value in batch.items() if not name.startswith("_")}

    def _work_through(self, batch: dict[str, Any]) -> None:
        ends = self.behaviour.batch_ends
        end = ends[min(self.batches.index(batch), len(ends) - 1)]
        if end == "failed":
            batch["errors"] = {"object": "list", "data": list(self.behaviour.batch_errors)}
            batch["status"] = end
            return
        calls = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        calls.sort(key=lambda call: number_of(call["custom_id"], "order"))
        done = len(calls) if end == "completed" else len(calls) // 2
        answers, errors = [], []
        for place, call in enumerate(calls):
            line = {"id": f"batch_req_{place}", "custom_id": call["custom_id"], "error": None}
            if place >= done:
                error = {"code": f"batch_{end}", "message": f"The batch {end} before this request."}
                errors.append({**line, "response": None, "error": error})
                continue
            status, body, _ = self.reply(call["body"])
            response = {"status_code": status, "request_id": f"req_{place}", "body": body}
            (answers if status == 200 else errors).append({**line, "response": response})
        for name, lines in (("output_file_id", answers), ("error_file_id", errors)):
            if lines:
                batch[name] = f"file-{batch['id']}-{name[:3]}"
                self.files[batch[name]] = "\n".join(map(json.dumps, lines)).encode()
        batch["request_counts"] |= {"completed": len(answers), "failed": len(errors)}
        batch["status"] = end

    def bill(self, request: str, model: str, *, useful: bool = True) -> None:
        with self._lock:
            self.billed.append(request)
            if useful:
                self.served.append(request)
            if self.log is not None:
                with self.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"request": request, "model": model}) + "\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    stub: StubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer leaves in one piece

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        stub, url = self.stub, urlsplit(self.path)
        parts = url.path.strip("/").split("/")[1:]
        if parts == ["models"]:
            self._json(200, {"object": "list", "data": [{"id": "stub", "object": "model"}]})
        elif self._refused():
            return
        elif parts == ["batches"]:
            self._list_batches({name: value[0] for name, value in parse_qs(url.query).items()})
        elif parts[:1] == ["batches"] and (found := self._batch(parts[1])):
            self._json(200, stub.look_at(found))
        elif parts[:1] == ["files"] and parts[2:] == ["content"] and parts[1] in stub.files:
            self._send(200, stub.files[parts[1]], "application/jsonl")
        else:
            self._error(404, f"no such path: {self.path}")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path.endswith("/files"):
            return None if self._refused() else self._keep_file(raw)
        try:
            body = json.loads(raw)
        except ValueError:
            return self._error(400, "the body is not JSON")
        stub, behaviour = self.stub, self.stub.behaviour
        if self.path.endswith("/batches"):
            return None if self._refused() else self._make_batch(body)
        with stub._lock:
            stub.requests.append((time.monotonic(), body))
        if self._refused():
            return None
        if behaviour.model and body.get("model") != behaviour.model:
            return self._error(404, f"The model {body.get('model')} does not exist")
        if not stub._places.acquire(blocking=not behaviour.reject):
            stub.sent["overrun"] += 1
            return self._limited()
        try:
            if self.path.endswith("/chat/completions"):
                self._chat(body)
            elif self.path.endswith("/embeddings"):
                self._embed(body)
            else:
                self._error(404, f"no such path: {self.path}")
        finally:
            stub._places.release()
        return None

    def _refused(self) -> bool:
        key, batches = self.stub.behaviour.key, self.stub.behaviour.batch_most
        if not batches and urlsplit(self.path).path.rpartition("/")[2] in ("files", "batches"):
            self._error(404, f"no such path: {self.path}")
            return True
        if key and self.headers.get("authorization") != f"Bearer {key}":
            self._error(401, "Incorrect API key provided", code="invalid_api_key")
            return True
        return False

    def _chat(self, body: dict[str, Any]) -> None:
        status, answer, fault = self.stub.reply(body)
        if fault in EARLY_FAULTS:
            return EARLY_FAULTS[fault](self)
        if fault == "trickle":
            return self._trickle(json.dumps(answer).encode())
        if status == 200 and body.get("stream") and self.stub.behaviour.streams and not fault:
            return self._stream(answer, (body.get("stream_options") or {}).get("include_usage"))
        return self._json(status, answer)

    def _keep_file(self, raw: bytes) -> None:
        head = f"content-type: {self.headers['content-type']}\r\n\r\n".encode()
        form = BytesParser().parsebytes(head + raw)
        fields = {
            part.get_param("name", header="content-disposition"): part.get_payload(decode=True)
            for part in form.get_payload()
        }
        if fields.get("purpose") != b"batch" or not fields.get("file"):
            return self._error(400, "expected a file and the purpose batch")
        name = f"file-{len(self.stub.files)}"
        self.stub.files[name] = fields["file"]
        return self._json(200, {"id": name, "object": "file", "purpose": "batch"})

    def _make_batch(self, asked: dict[str, Any]) -> None:
        if asked.get("input_file_id") not in self.stub.files:
            return self._error(400, f"no such file: {asked.get('input_file_id')}")
        batch = self.stub.make_batch(asked)
        if len(self.stub.batches) <= self.stub.behaviour.batch_lost:
            return self._reset()
        return self._json(
            200, {name: value for name, value in batch.items() if not name.startswith("_")}
        )

    def _list_batches(self, query: dict[str, str]) -> None:
        batches = self.stub.batches[::-1]
        names = [batch["id"] for batch in batches]
        first = names.index(query["after"]) + 1 if "after" in query else 0
        last = first + int(query.get("limit", 20))
        page = [self.stub.look_at(batch) for batch in batches[first:last]]
        self._json(200, {"object": "list", "data": page, "has_more": last < len(batches)})

    def _batch(self, name: str) -> dict[str, Any] | None:
        return next((batch for batch in self.stub.batches if batch["id"] == name), None)

    def _embed(self, body: dict[str, Any]) -> None:
        texts = body.get("input")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            return self._error(400, "input must be text or a list of texts")
        time.sleep(self.stub.behaviour.latency)
        data = [
            {"object": "embedding", "index": index, "embedding": embedding(text)}
            for index, text in enumerate(texts)
        ]
        self.stub.bill(f"{number_of(*texts):016x}", str(body.get("model")))
        tokens = sum(len(text) // 4 for text in texts)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return self._json(
            200, {"object": "list", "data": data, "model": body.get("model"), "usage": usage}
        )

    # ---- sending

    def _json(self, status: int, value: Any, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._send(status, json.dumps(value).encode(), "application/json", headers)

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str = "application/json",
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _error(
        self, status: int, message: str, code: str = "", headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        self._json(status, error_body(message, code), headers)

    def _limited(self, *headers: tuple[str, str]) -> None:
        self._error(429, "Rate limit reached", headers=headers)

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)  # close with a reset instead of a farewell
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    def _cut(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "5000")
        self.end_headers()
        self.wfile.write(b'{"id": "chatcmpl-1", "choices": [{"mess')
        self.wfile.flush()
        self.close_connection = True

    def _stream(self, answer: dict[str, Any], usage: bool | None) -> None:
        """The answer as server-sent events, eight characters each; without a length, so that the
        end of the connection ends it. A client that leaves is counted in ``sent``."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        behaviour, text = self.stub.behaviour, answer["choices"][0]["message"]["content"]
        head = {"id": answer["id"], "object": "chat.completion.chunk", "model": answer["model"]}

        def event(**more: Any) -> None:
            self.wfile.write(f"data: {json.dumps({**head, **more})}\n\n".encode())
            self.wfile.flush()

        def choice(delta: dict[str, Any], finish: str | None = None) -> list[dict[str, Any]]:
            return [{"index": 0, "delta": delta, "finish_reason": finish}]

        try:
            event(choices=choice({"role": "assistant", "content": ""}))
            for start in range(0, len(text), 8):
                time.sleep(behaviour.pace)
                event(choices=choice({"content": text[start : start + 8]}))
                if start >= 16 and behaviour.stream_end == "cut":
                    return
                if start >= 16 and behaviour.stream_end == "error":
                    return event(**error_body("the server is overloaded"))
            event(choices=choice({}, answer["choices"][0]["finish_reason"]))
            if usage:
                event(choices=[], usage=answer["usage"])
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            self.stub.sent["left"] += 1

    def _trickle(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        for place in range(len(body)):
            self.wfile.write(body[place : place + 1])
            self.wfile.flush()
            time.sleep(self.stub.behaviour.trickle)


def error_body(message: str, code: str = "") -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": code or None}}


def _date(handler: _Handler) -> str:
    return formatdate(time.time() + math.ceil(handler.stub.behaviour.retry_after), usegmt=True)


EARLY_FAULTS: dict[str, Callable[[_Handler], None]] = {
    "429": lambda handler: handler._limited(),
    "429-seconds": lambda handler: handler._limited(
        ("retry-after", f"{handler.stub.behaviour.retry_after:g}")
    ),
    "429-date": lambda handler: handler._limited(("retry-after", _date(handler))),
    "500": lambda handler: handler._error(500, "internal error"),
    "503": lambda handler: handler._error(503, "overloaded"),
    "reset": _Handler._reset,
    "empty-body": lambda handler: handler._send(200, b""),
    "html": lambda handler: handler._send(200, b"<html><body>Sign in</body></html>", "text/html"),
    "not-json": lambda handler: handler._send(200, b"upstream says hello"),
    "cut-body": _Handler._cut,
}


def _bent(asked: list[dict[str, str]], fault: str) -> Any:
    """The queries with the fault's content in them."""
    if fault == "too-many":
        return [dict(query, query=f"{query['query']} {number}") for number in range(4)
                for query in asked]  # fmt: skip
    if fault == "too-few":
        return asked[:1]
    if fault == "surrogate":
        return [dict(query, query=f"{query['query']} \ud83d\x00") for query in asked]
    if fault == "no-schema":
        return 7
    return asked


def _wrapped(text: str, fault: str) -> str:
    if fault == "fenced":
        return f"Here are your queries:\n```json\n{text}\n```\nAnything else?"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--jitter-ms", type=float, default=0)
    parser.add_argument("--places", type=int, default=1024, help="requests served at a time")
    parser.add_argument("--reject", action="store_true", help="429 above the places, no queue")
    parser.add_argument("--faults", type=float, default=0, help="share of requests, 0 to 1")
    parser.add_argument("--kinds", default=",".join(FAULTS), help="faults to choose from")
    parser.add_argument("--stubborn", action="store_true", help="faults stay on later tries")
    parser.add_argument("--log", type=Path, help="one line per billed answer")
    options = parser.parse_args()
    behaviour = Behaviour(
        latency=options.latency_ms / 1000,
        jitter=options.jitter_ms / 1000,
        places=options.places,
        reject=options.reject,
        faults=options.faults,
        kinds=tuple(options.kinds.split(",")),
        stubborn=options.stubborn,
    )
    with StubServer(behaviour, options.port, options.log) as server:
        print(server.url, flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
