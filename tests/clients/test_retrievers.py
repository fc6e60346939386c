"""The retrievers inside the real frameworks."""

import asyncio
import subprocess
import sys

import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.records import Chunk, content_id
from embedtune.retrieve.index import Index, prepare, update
from embedtune.retrieve.stores import open_store

TEXTS = [
    ("fees.md", 3, ("Fees", "At night"), "The night fee is 12 euros a shift."),
    ("battery.md", None, (), "A flat battery needs ninety minutes at the dock."),
    ("手册.md", 2, ("费用",), "夜班费用为每班十二欧元。"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("handbook") / "index"
    chunks = [
        Chunk(content_id("c", text), name, 0, len(text), "", text, section, page, source=name)
        for name, page, section, text in TEXTS
    ]
    embedder, store = HashingEmbedder(), open_store(place)
    prepare(store, embedder, source="hashing:256")
    update(store, chunks, embedder)
    store.close()
    return place


CASES = [
    ("what is the night fee", "fees.md", 3, "Fees > At night", TEXTS[0][3]),
    ("夜班费用", "手册.md", 2, "费用", TEXTS[2][3]),
    ("flat battery", "battery.md", None, "", TEXTS[1][3]),
]


@pytest.mark.parametrize(("query", "source", "page", "section", "text"), CASES)
def test_langchain_gets_documents(place, query, source, page, section, text):
    from embedtune.clients.langchain import EmbedtuneRetriever

    retriever = EmbedtuneRetriever.open(str(place), k=2, how="dense")
    found = retriever.invoke(query)
    assert len(found) == 2
    first = found[0]
    assert first.page_content == text
    assert first.id == content_id("c", text)
    kept = {name: first.metadata[name] for name in ("source", "page", "section")}
    assert kept == {"source": source, "page": page, "section": section}
    with Index.open(place) as index:
        expected = index.search([query], 2, "dense")[0]
    assert [own.metadata["score"] for own in found] == pytest.approx(
        [hit.score for hit in expected]
    )
    assert asyncio.run(retriever.ainvoke(query)) == found


def test_langchain_puts_it_into_a_chain(place):
    from langchain_core.runnables import RunnableLambda

    from embedtune.clients.langchain import EmbedtuneRetriever

    joined = RunnableLambda(lambda found: " | ".join(own.page_content for own in found))
    chain = EmbedtuneRetriever.open(str(place), k=1) | joined
    assert chain.invoke("night fee") == TEXTS[0][3]
    assert chain.batch(["night fee", "夜班费用"]) == [TEXTS[0][3], TEXTS[2][3]]


@pytest.mark.parametrize(("query", "source", "page", "section", "text"), CASES)
def test_llama_index_gets_nodes(place, query, source, page, section, text):
    from embedtune.clients.llama_index import EmbedtuneRetriever

    retriever = EmbedtuneRetriever.open(str(place), k=2, how="dense")
    found = retriever.retrieve(query)
    assert len(found) == 2
    assert found[0].node.get_content() == text
    assert found[0].node.node_id == content_id("c", text)
    kept = {name: found[0].node.metadata[name] for name in ("source", "page", "section")}
    assert kept == {"source": source, "page": page, "section": section}
    assert found[0].score > found[1].score
    again = asyncio.run(retriever.aretrieve(query))
    assert [(own.node_id, own.score) for own in again] == [
        (own.node_id, own.score) for own in found
    ]


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [("langchain", "langchain_core", "langchain"), ("llama_index", "llama_index", "llama-index")],
)
def test_a_missing_framework_names_the_extra(module, missing, extra):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from embedtune.errors import ConfigError\n"
        f"try:\n    import embedtune.clients.{module}\n"
        "except ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'embedtune[{extra}]'" in done.stdout
