"""A service over HTTP, and a data set whose questions use other words than its passages."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from embedtune.embed.hashing import HashingEmbedder

# a passage's word and what people call it
WORDS = [
    ("invoice", "bill"), ("remuneration", "pay"), ("vehicle", "car"), ("premises", "house"),
    ("physician", "doctor"), ("beverage", "drink"), ("garment", "clothes"), ("juvenile", "kid"),
    ("automobile", "ride"), ("purchase", "buy"), ("assistance", "help"), ("residence", "home"),
    ("commence", "start"), ("terminate", "stop"), ("utilise", "use"), ("examine", "check"),
    ("deceased", "dead"), ("fracture", "broken"), ("currency", "money"), ("aliment", "food"),
    ("发票", "账单"), ("薪酬", "工资"), ("车辆", "汽车"), ("房屋", "住宅"), ("医师", "大夫"),
    ("饮品", "喝的"), ("服装", "衣裳"), ("儿童", "小孩"), ("购置", "买入"), ("协助", "帮忙"),
    ("寓所", "住处"), ("起始", "开头"), ("终止", "停掉"), ("使用", "用到"), ("检验", "查看"),
    ("骨折", "断骨"), ("货币", "钞票"), ("食品", "吃的"), ("道路", "马路"), ("疾病", "毛病"),
]  # fmt: skip


class Service(ThreadingHTTPServer):
    """Embeddings as the OpenAI API has them, by hashed words. ``paid`` counts texts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.embedder = HashingEmbedder(192)
        self.paid: Counter[str] = Counter()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
        self.server.paid.update(texts)
        vectors = self.server.embedder.embed(texts, "document").tolist()
        rows = [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]
        answer = {"data": rows, "usage": {"prompt_tokens": sum(map(len, texts))}}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Service]:
    server = Service()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-to-be-stored")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def write_data() -> Callable[..., Path]:
    return _write_data


def _write_data(folder: Path, *, same_words: bool = False, count: int = 120) -> Path:
    """Passages of six words in English or Chinese, each with a question about three of them: in
    people's words, or in the passage's own."""
    rng = random.Random(4)
    (folder / "qrels").mkdir(parents=True)
    passages, questions = [], []
    for number in range(count):
        half = WORDS[:20] if number % 2 else WORDS[20:]
        chosen = rng.sample(half, 6)
        text = f"{' '.join(word for word, _ in chosen)} {number * 7919 % 10007}"
        asked = rng.sample(chosen, 3)
        question = " ".join(words[0 if same_words else 1] for words in asked)
        passages.append({"_id": f"p{number}", "title": "", "text": text})
        questions.append({"_id": f"q{number}", "text": question})
    for name, rows in (("corpus", passages), ("queries", questions)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, "utf-8")
    parts = {"train": range(count - 60), "dev": range(count - 60, count - 40),
             "test": range(count - 40, count)}  # fmt: skip
    for name, numbers in parts.items():
        lines = "".join(f"q{number}\tp{number}\t1\n" for number in numbers)
        (folder / "qrels" / f"{name}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return folder
