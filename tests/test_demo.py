"""The bundled corpus: large enough, of all kinds, and its questions outlive another chunking."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from embedtune.demo import demo_settings
from embedtune.documents import ChunkSettings, chunk_documents, read_documents
from embedtune.embed.tokens import WordTokens, load_tokens
from embedtune.llm.recorded import RecordedChat, open_chat
from embedtune.queries import generate_queries
from embedtune.relevance import judge
from embedtune.store import Store

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return demo_settings(tmp_path_factory.mktemp("demo") / "run")


@pytest.fixture(scope="module")
def documents(settings):
    reading = read_documents([Path(path) for path in settings.documents.paths], settings.documents)
    assert reading.rejects == ()
    return reading.documents


@pytest.fixture(scope="module")
def asked(settings, documents, tmp_path_factory):
    """Chunks and queries for a number of tokens, by name."""
    made = {}

    def ask(size, tokens):
        if size not in made:
            chunks = chunk_documents(documents, tokens, ChunkSettings(tokens=size)).chunks
            with Store(tmp_path_factory.mktemp("store") / "answers.sqlite") as store:
                chat = RecordedChat(open_chat(settings.llm), store, settings.llm)
                made[size] = (
                    chunks,
                    generate_queries(chunks, documents, chat, settings.queries).queries,
                )
        return made[size]

    return ask


def test_documents_are_many_and_of_all_kinds(documents):
    assert len(documents) >= 40
    kinds = Counter(document.source.rsplit(".", 1)[1] for document in documents)
    assert kinds.keys() == {"pdf", "docx", "html", "md", "txt"}
    languages = Counter(document.language for document in documents)
    assert languages["en"] >= 20
    assert languages["zh"] >= 10


@pytest.mark.model
def test_as_the_demo_cuts_it(settings, asked):
    chunks, queries = asked(256, load_tokens(settings.model.base[0]))
    assert settings.chunks.tokens == 256
    assert len(chunks) >= 200
    assert len(queries) >= 600
    assert len({query.text for query in queries}) == len(queries)
    assert len({query.style for query in queries}) >= 3
    assert not [query for query in queries if "not-grounded" in query.flags]


@pytest.mark.model
@pytest.mark.parametrize(
    ("size", "tokens"), [(128, None), (384, WordTokens()), (512, WordTokens())]
)
def test_questions_outlive_another_chunking(settings, documents, asked, size, tokens):
    model = load_tokens(settings.model.base[0])
    _, before = asked(256, model)
    chunks, after = asked(size, tokens or model)
    evidence = {query.text: query.evidence for query in after}
    kept = [query for query in before if query.text in evidence]
    assert len(kept) >= 0.98 * len(before)
    # the evidence is the same stretch of the same document, and a chunk holds it
    assert [query for query in kept if evidence[query.text] != query.evidence] == []
    qrels = judge(after, chunks, [])
    assert sum(bool(qrels.get(query.id)) for query in after) >= 0.98 * len(before)


def test_sources_and_what_is_shipped_agree():
    done = subprocess.run(
        [sys.executable, "scripts/build_demo.py", "--check"], cwd=ROOT, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
