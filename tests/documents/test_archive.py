import io
import os
import struct
import zipfile
from pathlib import Path

import pytest

from embedtune.documents.read import DocumentSettings, Reading, read_documents
from embedtune.errors import NothingUsable

GOOD = b"# Pump\n\nThe pump moves water through the house.\n"


def packed(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = 8) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


class Raw(zipfile.ZipInfo):
    """A name in bytes of any encoding, not marked as UTF-8."""

    def __init__(self, name: str, encoding: str) -> None:
        super().__init__(name)
        self.encoding = encoding

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


def flagged(data: bytes, *, put: int = 0, clear: int = 0) -> bytes:
    """The archive with the flags of all members changed."""
    out = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = out.find(mark)
        while place >= 0:
            [flags] = struct.unpack_from("<H", out, place + offset)
            struct.pack_into("<H", out, place + offset, (flags | put) & ~clear)
            place = out.find(mark, place + 4)
    return bytes(out)


def read(folder: Path, **values: object) -> Reading:
    before = sorted(folder.rglob("*"))
    reading = read_documents([folder], DocumentSettings(**values))
    assert sorted(folder.rglob("*")) == before
    assert reading.counts.accepted == len(reading.documents)
    return reading


def codes(reading: Reading) -> dict[str, str]:
    return {reject.file: reject.code for reject in reading.rejects}


def sources(reading: Reading) -> list[str]:
    return [document.source for document in reading.documents]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


def test_members_are_read_as_if_they_lay_in_a_folder(folder: Path, make_pdf) -> None:
    members = [
        ("inner/b.pdf", make_pdf(["Words of the page about a valve."])),
        ("a.md", GOOD),
        (
            "inner/部门/c.txt",
            "水泵的使用应当符合下列条件：先关闭阀门，再由管理员开机。".encode("gb18030"),
        ),
        ("rows.csv", b"title,text\nValve,Open it first.\nPipe,\n"),
    ]
    (folder / "all.zip").write_bytes(packed(*members))
    reading = read(folder)
    assert sources(reading) == [
        "all.zip/a.md", "all.zip/inner/b.pdf", "all.zip/inner/部门/c.txt", "all.zip/rows.csv:2"
    ]  # fmt: skip
    for name, data in members:  # one by one, as plain files
        place = folder.parent / "unpacked" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    plain = read(folder.parent / "unpacked")
    assert {d.id: (d.title, d.kind, d.meta) for d in reading.documents} == {
        d.id: (d.title, d.kind, d.meta) for d in plain.documents
    }
    assert [(r.file, r.line, r.code) for r in reading.rejects] == [
        ("all.zip/rows.csv", 3, "no-text")
    ]
    assert (reading.counts.total, reading.counts.rejected) == (5, 1)


def test_bad_members_do_not_cost_the_others(folder: Path) -> None:
    data = packed(("a.md", GOOD), ("b.pdf", b"no pdf"), ("c.docx", b""), ("d.txt", b" \n"))
    (folder / "all.zip").write_bytes(data)
    (folder / "same.md").write_bytes(GOOD)
    reading = read(folder)
    assert codes(reading) == {
        "all.zip/b.pdf": "not-pdf", "all.zip/c.docx": "empty-file", "all.zip/d.txt": "no-content",
    }  # fmt: skip
    assert [d.file for d in reading.duplicates] == ["same.md"]
    assert (reading.counts.total, reading.counts.rejected) == (5, 3)


def test_patterns_reach_into_archives(folder: Path) -> None:
    (folder / "all.zip").write_bytes(packed(("a.md", GOOD), ("old/b.txt", b"Words about pipes.")))
    assert sources(read(folder, include=["*.md"])) == ["all.zip/a.md"]
    assert sources(read(folder, exclude=["*/old/*"])) == ["all.zip/a.md"]
    with pytest.raises(NothingUsable):
        read(folder, exclude=["*.zip"])


def test_what_is_hidden_or_of_unknown_type_is_counted(folder: Path) -> None:
    names = [".DS_Store", "__MACOSX/._a.md", ".git/x.md", "a.exe", "README", "a.md"]
    (folder / "all.zip").write_bytes(packed(*[(name, GOOD) for name in names]))
    reading = read(folder)
    assert sources(reading) == ["all.zip/a.md"]
    assert not reading.rejects
    assert set(reading.notes) == {
        "2 files of unknown type not read: (none) (1), .exe (1)",
        "3 hidden files and folders not read",
    }


# ---- names


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("泵房管理办法与停机规定.md", "gbk"),
        ("报告.md", "gbk"),
        ("水电费/2024年第3季度.md", "gbk"),
        ("泵房管理办法与停机规定.md", "utf-8"),
        ("報告與規定的說明和時間.md", "big5"),
        ("ポンプの使い方について.md", "cp932"),
        ("café über.md", "cp437"),
        ("Übersicht über Größen.md", "cp1252"),
    ],
)
def test_names_in_the_encoding_of_another_system(folder: Path, name: str, encoding: str) -> None:
    (folder / "all.zip").write_bytes(packed((Raw(name, encoding), GOOD), ("plain.md", b"Words.")))
    reading = read(folder)
    assert set(sources(reading)) == {"all.zip/plain.md", f"all.zip/{name}"}
    assert ("names of members read as" in " ".join(reading.notes)) == (
        encoding not in ("cp437", "utf-8")
    )


@pytest.mark.parametrize("name", ["../../x.md", "/etc/x.md", "C:/x.md", "a/../../x.md", "..\\x.md"])
def test_names_that_lead_outside_are_refused(folder: Path, name: str) -> None:
    (folder / "all.zip").write_bytes(packed((name, GOOD), ("a.md", GOOD)))
    reading = read(folder)
    assert codes(reading) == {f"all.zip/{name}".replace("\\", "/"): "archive-path"}
    assert sources(reading) == ["all.zip/a.md"]
    assert not list(folder.parent.rglob("x.md"))


def test_names_of_windows_folders_and_odd_names(folder: Path) -> None:
    names = ["sub\\b.md", "new\nline.md", "\u202egnp.md", "<script>.md", "a" * 5000 + ".md"]
    members = [(name, GOOD + str(n).encode()) for n, name in enumerate(names)]
    (folder / "all.zip").write_bytes(packed(*members))
    found = sources(read(folder))
    assert len(found) == 5
    assert "all.zip/sub/b.md" in found
    assert all(source.isprintable() for source in found)


def test_a_name_that_stands_twice_is_read_once_and_named(folder: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = packed(("a.md", b"An older text of this name."), ("a.md", GOOD))
    (folder / "all.zip").write_bytes(data)
    reading = read(folder)
    assert [d.text.encode() for d in reading.documents] == [GOOD]
    assert codes(reading) == {"all.zip/a.md": "repeated-name"}


# ---- members that are not to be expanded


def test_archives_links_and_passwords_inside_are_named(folder: Path) -> None:
    link = zipfile.ZipInfo("link.md")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    (folder / "a.zip").write_bytes(
        packed((link, b"/etc/passwd"), ("b.zip", packed(("c.md", GOOD))), ("d.md", GOOD))
    )
    (folder / "locked.zip").write_bytes(flagged(packed(("e.md", GOOD)), put=1))
    reading = read(folder)
    assert codes(reading) == {
        "a.zip/link.md": "outside-link", "a.zip/b.zip": "nested-archive",
        "locked.zip/e.md": "encrypted",
    }  # fmt: skip
    assert sources(reading) == ["a.zip/d.md"]


def test_a_member_that_expands_too_far_is_refused_before_it_does(folder: Path) -> None:
    (folder / "all.zip").write_bytes(packed(("bomb.txt", b"\x00" * 60_000_000), ("a.md", GOOD)))
    reading = read(folder)
    assert codes(reading) == {"all.zip/bomb.txt": "archive-bomb"}
    assert "60,000,000" in reading.rejects[0].message
    assert sources(reading) == ["all.zip/a.md"]


def test_a_member_over_the_memory_limit_is_refused_before_it_expands(folder: Path) -> None:
    big = b"".join(os.urandom(6) + bytes(994) for _ in range(270_000))  # packs to a hundredth
    (folder / "all.zip").write_bytes(packed(("big.txt", big), ("a.md", GOOD)))
    reading = read(folder, max_megabytes=256)
    assert codes(reading) == {"all.zip/big.txt": "limits"}
    assert "270,000,000 bytes" in reading.rejects[0].message
    assert sources(reading) == ["all.zip/a.md"]


def test_too_many_members_are_refused(folder: Path) -> None:
    (folder / "all.zip").write_bytes(packed(*[(f"{n}.md", b"") for n in range(10_001)]))
    reading = read(folder)
    assert codes(reading) == {"all.zip": "archive-bomb"}
    assert "10,001 files" in reading.rejects[0].message


def test_members_that_share_their_bytes_are_refused(folder: Path) -> None:
    """One stretch of packed bytes, claimed by a thousand members."""
    data = packed(("0000.txt", os.urandom(40_000).hex().encode()))
    begin, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entry = data[begin:end]
    entries = b"".join(entry.replace(b"0000.txt", b"%04d.txt" % n) for n in range(1000))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 1000, 1000, len(entries), begin, 0)
    (folder / "all.zip").write_bytes(data[:begin] + entries + tail)
    assert codes(read(folder)) == {"all.zip": "archive-bomb"}


def test_a_member_larger_than_it_says_is_named(folder: Path) -> None:
    honest = packed(("a.txt", b"long words " * 400_000))
    [size] = struct.unpack_from("<L", honest, 22)
    assert size == 4_400_000
    lying = honest.replace(struct.pack("<L", size), struct.pack("<L", 10))
    (folder / "all.zip").write_bytes(lying)
    assert codes(read(folder)) == {"all.zip/a.txt": "broken-archive"}


def test_a_damaged_member_and_one_packed_in_an_unknown_way_are_named(folder: Path) -> None:
    data = bytearray(packed(("a.txt", b"words of the text about a pump"), ("b.md", GOOD),
                            method=zipfile.ZIP_STORED))  # fmt: skip
    data[data.index(b"words")] ^= 1
    (folder / "all.zip").write_bytes(bytes(data))
    odd = packed(("c.txt", b"words")).replace(b"\x08\x00", b"\x63\x00")  # AES of WinZip
    (folder / "odd.zip").write_bytes(odd)
    reading = read(folder)
    assert codes(reading) == {
        "all.zip/a.txt": "broken-archive", "odd.zip/c.txt": "broken-archive"
    }  # fmt: skip
    assert sources(reading) == ["all.zip/b.md"]


# ---- archives that are none


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty-file"),
        (b"plain text", "not-zip"),
        (packed(), "empty-archive"),
        (packed(("folder/", b"")), "empty-archive"),
        (packed(("a.md", GOOD * 99))[:-30], "not-zip"),
        (b"PK\x03\x04" + bytes(1000), "not-zip"),
    ],
)
def test_an_archive_that_cannot_be_read_is_named(folder: Path, data: bytes, code: str) -> None:
    (folder / "all.zip").write_bytes(data)
    (folder / "good.md").write_bytes(GOOD)
    reading = read(folder)
    assert codes(reading) == {"all.zip": code}
    assert sources(reading) == ["good.md"]


def test_an_archive_that_changes_while_it_is_read(folder: Path) -> None:
    members = [(f"{n}.md", GOOD + bytes([65 + n])) for n in range(3)]
    path = folder / "all.zip"
    path.write_bytes(packed(*members))

    def meddle(done: int, total: int) -> None:
        if done == 1:
            path.write_bytes(packed(*members, ("late.md", GOOD)))

    reading = read_documents([folder], DocumentSettings(), meddle)
    assert codes(reading) == {"all.zip/1.md": "changed", "all.zip/2.md": "changed"}
    assert sources(reading) == ["all.zip/0.md"]


def test_an_archive_with_nothing_to_read_is_no_success(folder: Path) -> None:
    (folder / "all.zip").write_bytes(packed(("a.exe", b"x"), ("b.exe", b"y")))
    with pytest.raises(NothingUsable, match=r"\.exe \(2\)"):
        read(folder)
