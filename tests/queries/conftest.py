"""Generation by a model that says what a test wants, through the store and all checks."""

import json

import pytest

from embedtune.llm.recorded import LLMSettings, RecordedChat
from embedtune.llm.scripted import ScriptedChat
from embedtune.queries import QuerySettings, generate_queries
from embedtune.store import Store


@pytest.fixture
def open_chat(tmp_path):
    """A recorded chat whose model says queries, a text, or what a function makes of a request."""
    opened = []

    def start(said, name="openai:fake"):
        def script(request):
            found = said(request) if callable(said) else said
            return json.dumps({"queries": found}) if isinstance(found, list) else found

        store = Store(tmp_path / f"{len(opened)}.sqlite")
        opened.append(store)
        return RecordedChat(ScriptedChat(script, name), store, LLMSettings(backoff=0.01))

    yield start
    for store in opened:
        store.close()


@pytest.fixture
def generate_from(open_chat):
    """Generation of the given chunks where the model says ``said``."""

    def run(said, chunks, documents, real=(), name="openai:fake", **settings):
        chat = open_chat(said, name)
        return generate_queries(chunks, documents, chat, QuerySettings(**settings), real=real)

    return run


@pytest.fixture
def asked(generate_from):
    """The requests that generation makes of the given chunks."""

    def run(chunks, documents=(), real=(), **settings):
        seen = []

        def said(request):
            seen.append(request)
            return []

        generate_from(said, chunks, documents, real, **settings)
        return seen

    return run
