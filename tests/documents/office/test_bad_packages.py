"""Bombs, stray paths, entities and old formats, in every type of document that is an archive."""

import io
import socket
import threading
import zipfile
from pathlib import Path

import pytest

from embedtune.documents.read import DocumentSettings, Reading, read_documents
from embedtune.records import unusable

PARTS = {
    "docx": ("word/document.xml", "w:document"),
    "pptx": ("ppt/presentation.xml", "p:presentation"),
    "xlsx": ("xl/workbook.xml", "workbook"),
    "epub": ("META-INF/container.xml", "container"),
}
OFFICE = ["docx", "pptx", "xlsx"]


def package(kind: str, **more: bytes) -> bytes:
    """The least that has the main part of its kind; ``__`` in further names stands for ``/``."""
    main, root = PARTS[kind]
    names = {"[Content_Types].xml": b"<Types/>", main: b"<%s/>" % root.split(":")[-1].encode()}
    names |= {name.replace("__", "/"): data for name, data in more.items()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return out.getvalue()


def read_beside_good(folder: Path, name: str, data: bytes) -> Reading:
    """Read it with a good file; only the bad one is rejected, and nothing is left or changed."""
    inside = folder / "docs"
    inside.mkdir()
    (inside / "good.md").write_text("The pump moves water.")
    (inside / name).write_bytes(data)
    before = {path: path.stat() for path in folder.rglob("*")}
    reading = read_documents([inside], DocumentSettings())
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == {
        path: status.st_mtime_ns for path, status in before.items()
    }
    assert [document.source for document in reading.documents] == ["good.md"]
    assert [reject.file for reject in reading.rejects] == [name]
    assert unusable(reading.rejects)
    assert (reading.counts.total, reading.counts.rejected) == (2, 1)
    return reading


@pytest.mark.parametrize("kind", PARTS)
def test_a_bomb_is_refused_before_it_expands(tmp_path: Path, kind: str) -> None:
    data = package(kind, media__x=b"\x00" * 60_000_000)
    reading = read_beside_good(tmp_path, f"a.{kind}", data)
    assert reading.rejects[0].code == "archive-bomb"


@pytest.mark.parametrize("kind", [*PARTS, "zip"])
def test_a_hundred_thousand_entries_are_refused(tmp_path: Path, kind: str) -> None:
    """The directory alone counts: its entries share one stretch of no bytes."""
    data = package("docx" if kind == "zip" else kind, x00000=b"")
    begin = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02"))
    end = data.index(b"PK\x05\x06")
    place = data.rindex(b"PK\x01\x02")
    extra = data[place:end]
    entries = b"".join(extra.replace(b"x00000", b"%06d" % n) for n in range(100_000))
    size = end - begin + len(entries)
    tail = (
        b"PK\x06\x06" + (44).to_bytes(8, "little") + b"\x2d\x00\x2d\x00" + bytes(8)
        + 2 * (100_003).to_bytes(8, "little") + size.to_bytes(8, "little")
        + begin.to_bytes(8, "little")
        + b"PK\x06\x07" + bytes(4) + (end + len(entries)).to_bytes(8, "little") + b"\x01" + bytes(3)
        + b"PK\x05\x06" + bytes(4) + b"\xff" * 12 + bytes(2)
    )  # fmt: skip
    reading = read_beside_good(tmp_path, f"a.{kind}", data[:end] + entries + tail)
    assert reading.rejects[0].code == "archive-bomb"
    assert "100,003" in reading.rejects[0].message


@pytest.mark.parametrize("kind", PARTS)
def test_entries_that_lead_outside_write_nothing(tmp_path: Path, kind: str) -> None:
    reading = read_beside_good(tmp_path, f"a.{kind}", package(kind, **{"..__..__stray": b"x"}))
    assert reading.rejects[0].code == "archive-path"
    assert not list(tmp_path.rglob("stray"))
    assert not (tmp_path.parent / "stray").exists()


@pytest.mark.parametrize("kind", [*OFFICE, "html"])
def test_entities_are_neither_expanded_nor_fetched(tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("words of a file that is no document")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        calls: list[object] = []

        def listen() -> None:
            try:
                calls.append(server.accept())
            except TimeoutError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        entities = (
            f'<!DOCTYPE d [<!ENTITY a SYSTEM "{secret.as_uri()}"><!ENTITY b SYSTEM "{url}">'
            '<!ENTITY c "lol"><!ENTITY d "&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;">]>'
        )
        page = f"<?xml version='1.0'?>{entities}<html><body>&a;&b;&d; words</body></html>".encode()
        if kind == "html":
            data = page
        else:
            data = package(kind, **{PARTS[kind][0].replace("/", "__"): page})
        reading = read_beside_good(tmp_path, f"a.{kind}", data)
        thread.join()
    assert calls == []
    assert reading.rejects[0].code == "entities"
    assert "words of a file" not in str(reading)


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize(
    "data", [b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), b"plain text", b"PK\x03\x04 cut"]
)
def test_other_files_under_the_extension_are_named(tmp_path: Path, kind: str, data: bytes) -> None:
    reading = read_beside_good(tmp_path, f"a.{kind}", data)
    assert reading.rejects[0].code == f"not-{kind}"
