"""A small handbook in two languages as an index on disk."""

from pathlib import Path

import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.records import Chunk, content_id
from embedtune.retrieve.index import Index, prepare, update
from embedtune.retrieve.stores import open_store

HANDBOOK = [
    ("fees.md", 3, "Fees", "The night fee is 12 euros a shift. Growers pay it with the bill."),
    ("fees.md", 4, "Fees", "A robot costs 640 euros a season, boots included."),
    ("battery.md", None, "Charging", "A flat battery needs ninety minutes at the dock."),
    ("radio.md", None, "Radio", "Firmware 7 moved the radio to channel 11."),
    ("手册.md", 2, "费用", "夜班费用为每班十二欧元。费用与筐单一起支付。"),
    ("手册.md", 5, "充电", "电池没电时，在充电座上充电需要九十分钟。"),
]  # fmt: skip


@pytest.fixture(scope="session")
def handbook(tmp_path_factory) -> Path:
    """The folder of the index. Do not change."""
    place = tmp_path_factory.mktemp("handbook") / "index"
    chunks = [
        Chunk(content_id("c", text), source, 0, len(text), "", text, (section,), page,
              source=source)
        for source, page, section, text in HANDBOOK
    ]  # fmt: skip
    embedder = HashingEmbedder()
    store = open_store(place)
    prepare(store, embedder, source="hashing:256")
    update(store, chunks, embedder)
    store.close()
    return place


@pytest.fixture
def index(handbook):
    with Index.open(handbook) as opened:
        yield opened
