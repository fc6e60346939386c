import errno
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from embedtune.documents.read import DocumentSettings, Reading, read_documents
from embedtune.documents.reading import Task
from embedtune.documents.worker import IMAGES, TYPES, read_file
from embedtune.errors import ConfigError, NothingUsable
from embedtune.records import unusable

GOOD = "# Pump\n\nThe pump moves water through the house.\n"


def read(*paths: Path, **values: object) -> Reading:
    reading = read_documents(list(paths), DocumentSettings(**values))
    counts = reading.counts
    assert counts.accepted == len(reading.documents)
    assert counts.duplicates == len(reading.duplicates)
    return reading


def codes(reading: Reading) -> dict[str, str]:
    return {reject.file: reject.code for reject in reading.rejects}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.md").write_text(GOOD)
    return folder


def test_documents_carry_source_title_language_and_digest(folder: Path) -> None:
    (folder / "部门").mkdir()
    (folder / "部门" / "停机.txt").write_text("先关闭阀门，再按下红色按钮。")
    reading = read(folder)
    english, chinese = reading.documents
    assert (english.source, english.title, english.kind, english.language) == (
        "good.md", "Pump", "markdown", "en")  # fmt: skip
    assert (chinese.source, chinese.title, chinese.language) == ("部门/停机.txt", "停机", "zh")
    assert english.meta["encoding"] == "utf-8"
    assert len(english.meta["sha256"]) == 64
    assert english.id.startswith("d")
    assert reading.rejects == ()


def test_reading_twice_gives_the_same(folder: Path) -> None:
    assert read(folder) == read(folder)


def test_a_path_that_does_not_exist_is_a_configuration_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "one", tmp_path / "two")
    assert len(caught.value.lines) == 2


def test_no_known_file_lists_the_extensions_seen(tmp_path: Path) -> None:
    with pytest.raises(NothingUsable, match="0 usable files"):
        read(tmp_path)
    for name in ("a.rar", "b.rar", "c.exe", "README"):
        (tmp_path / name).write_text("x")
    with pytest.raises(NothingUsable, match=r"\.rar \(2\), .*\.exe \(1\)"):
        read(tmp_path)


def test_unknown_extensions_are_counted_in_a_note(folder: Path) -> None:
    (folder / "a.rar").write_text("x")
    reading = read(folder)
    assert reading.notes == ("1 files of unknown type not read: .rar (1)",)
    assert not reading.rejects


def test_a_file_of_unknown_type_asked_for_by_name_is_rejected(folder: Path) -> None:
    (folder / "a.rar").write_text("x")
    assert codes(read(folder / "good.md", folder / "a.rar")) == {"a.rar": "unknown-type"}


def test_include_and_exclude(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "b.md").write_text("Another text about the old pump.")
    (folder / "c.txt").write_text("A text file about valves.")
    assert [d.source for d in read(folder, include=["*.md"]).documents] == ["good.md", "old/b.md"]
    assert [d.source for d in read(folder, exclude=["old/*"]).documents] == ["c.txt", "good.md"]


def test_an_empty_file_of_every_type_is_rejected_and_the_rest_is_read(
    folder: Path, stand_in: Callable[[str], None]
) -> None:
    stand_in("raise SystemExit(1)")  # so that pictures count
    alone = read(folder).documents
    names = {f"a{suffix}" for suffix in TYPES | IMAGES}
    assert len(names) > 20
    for name in names:
        (folder / name).touch()
    reading = read(folder, ocr="tesseract")
    assert codes(reading) == dict.fromkeys(names, "empty-file")
    assert reading.documents == alone
    assert unusable(reading.rejects)
    assert (reading.counts.total, reading.counts.rejected) == (len(names) + 1, len(names))


@pytest.mark.parametrize("text", ["  \n ", "\u200b\u200b\ufeff", "12\n13\n14\n"])
def test_a_document_without_content_is_rejected(folder: Path, text: str) -> None:
    (folder / "blank.txt").write_text(text, "utf-8")
    assert codes(read(folder)) == {"blank.txt": "no-content"}


def test_exact_copies_are_kept_once(folder: Path) -> None:
    (folder / "copy.md").write_text(GOOD)
    (folder / "windows.md").write_text(GOOD.replace("\n", "\r\n"), newline="")
    (folder / "other.md").write_text(GOOD.replace("water", "milk"))
    reading = read(folder)
    assert [d.source for d in reading.documents] == ["copy.md", "other.md"]
    assert [(d.file, d.message) for d in reading.duplicates] == [
        ("good.md", "the same text as copy.md"),
        ("windows.md", "the same text as copy.md"),
    ]
    assert not unusable(reading.duplicates)


# ---- the file system


def test_links_that_loop_or_lead_outside(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("Words that lie outside of the folder.")
    (folder / "loop").symlink_to(folder)
    (folder / "outside.md").symlink_to(secret)
    (folder / "nowhere.md").symlink_to(tmp_path / "missing")
    (folder / "self.md").symlink_to("self.md")
    (folder / "again.md").symlink_to("good.md")
    reading = read(folder)
    assert len(reading.documents) == 1
    assert codes(reading) == dict.fromkeys(("outside.md", "nowhere.md", "self.md"), "outside-link")
    assert any("2 links" in note for note in reading.notes)


def test_special_files_are_refused_and_never_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.txt"))
    assert codes(read(folder)) == {"pipe.txt": "special-file", "socket.txt": "special-file"}
    assert codes(read(Path("/dev/null"), folder / "good.md")) == {"null": "special-file"}


@pytest.mark.parametrize(
    "name",
    ["new\nline.md", 'quo"te.md', "emoji 🍎.md", "a" * 252 + ".md",
     "<script>alert(1)<script>.md",
     "-rf.md", "\u202egnp.md"],
)  # fmt: skip
def test_odd_names_are_read_and_shown_escaped(folder: Path, name: str) -> None:
    (folder / "good.md").unlink()
    (folder / name).write_text(GOOD)
    [document] = read(folder).documents
    assert document.source.isprintable()
    assert ("\\n" in document.source) == ("\n" in name)


def test_a_name_that_is_not_utf8(folder: Path) -> None:
    (folder / "good.md").unlink()
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.md")).write_text(GOOD)
    [document] = read(folder).documents
    document.source.encode()
    assert document.source == "caf\\udce9.md"


def test_a_file_that_changes_or_goes_after_listing(folder: Path) -> None:
    (folder / "a.md").write_text("First in the list of all files.")
    for name in ("gone.md", "grown.md"):
        (folder / name).write_text("A text that will not stay as it is.")

    def meddle(done: int, total: int) -> None:
        if done == 1:
            (folder / "gone.md").unlink(missing_ok=True)
            (folder / "grown.md").write_text("longer " * 9)

    reading = read_documents([folder], DocumentSettings(), meddle)
    assert codes(reading) == {"gone.md": "gone", "grown.md": "changed"}
    assert [d.source for d in reading.documents] == ["a.md", "good.md"]


def test_a_file_without_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)  # root may read everything
    for kind in ("markdown", "zip"):
        task = Task(str(folder / "good.md"), kind, (1, 1), most_bytes=1000, seconds=1)
        assert read_file(task) == {"code": "unreadable", "message": "Permission denied"}


def test_links_that_lead_to_each_other(folder: Path) -> None:
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    (folder / "sub").mkdir()
    (folder / "sub" / "up.md").symlink_to("../sub/down.md")
    (folder / "sub" / "down.md").symlink_to("up.md")
    (folder / "sub" / "above").symlink_to("..")
    reading = read(folder)
    names = ("one", "two", "sub/up.md", "sub/down.md")
    assert codes(reading) == dict.fromkeys(names, "outside-link")
    assert len(reading.documents) == 1


def test_a_folder_named_like_a_file_is_a_folder(folder: Path) -> None:
    for name in ("x.pdf", "y.zip"):
        (folder / name).mkdir()
        (folder / name / "in.md").write_text(f"Words that lie in {name}.")
    assert [d.source for d in read(folder).documents] == ["good.md", "x.pdf/in.md", "y.zip/in.md"]


def test_a_file_named_like_an_option(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "-").write_text("Words of a file without extension.")
    (folder / "-.md").write_text("Words of a file named by a dash.")
    assert [d.source for d in read(folder).documents] == ["-.md", "good.md"]
    monkeypatch.chdir(folder)
    assert codes(read(Path("-"), Path("-.md"))) == {"-": "unknown-type"}


def test_folders_deeper_than_the_system_names_are_left_out_by_name(folder: Path) -> None:
    (folder / "deep.md").write_text("Words that lie on top.")
    here = os.open(folder, os.O_RDONLY)
    for number in range(60):  # 60 names of 100 characters: longer than any path may be
        name = f"{number:02d}" + "x" * 98
        os.mkdir(name, dir_fd=here)
        there = os.open(name, os.O_RDONLY, dir_fd=here)
        if number in (5, 59):
            file = os.open("in.md", os.O_WRONLY | os.O_CREAT, dir_fd=there)
            os.write(file, b"Words that lie %d folders deep." % number)
            os.close(file)
        os.close(here)
        here = there
    os.close(here)
    reading = read(folder)
    texts = {d.text for d in reading.documents}
    assert texts == {GOOD, "Words that lie on top.", "Words that lie 5 folders deep."}
    assert set(codes(reading).values()) == {"unreadable"}


def test_a_sparse_file_is_refused_by_its_size(folder: Path) -> None:
    for name in ("large.txt", "large.pdf", "large.zip"):
        with open(folder / name, "wb") as file:
            file.truncate(40 << 30)  # takes no room
    reading = read(folder, max_megabytes=256, max_seconds=20)
    assert codes(reading) == {
        "large.txt": "limits", "large.pdf": "limits", "large.zip": "not-zip"
    }  # fmt: skip
    assert len(reading.documents) == 1


def test_a_file_that_grows_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "log.txt"
    path.write_text("one line\n")
    status = path.stat()
    task = Task(str(path), "text", (status.st_size, status.st_mtime_ns), 1 << 20, seconds=1)
    stop = threading.Event()

    def grow() -> None:
        with path.open("a") as file:
            while not stop.is_set():
                file.write("another line\n" * 100)
                file.flush()

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        while path.stat().st_size == status.st_size:
            time.sleep(0.001)
        assert read_file(task)["code"] == "changed"
    finally:
        stop.set()
        thread.join()


# ---- limits


def children() -> set[str]:
    command = ["ps", "--ppid", str(os.getpid()), "-o", "args="]
    listed = subprocess.run(command, capture_output=True, text=True)
    return {line for line in listed.stdout.splitlines() if "embedtune.documents.worker" in line}


def test_a_file_over_the_time_limit_is_stopped_and_the_run_goes_on(folder: Path) -> None:
    (folder / "a.html").write_text("<p>Pump</p>" * 600_000)
    reading = read(folder, max_seconds=4)
    assert codes(reading) == {"a.html": "limits"}
    assert "more than 4 s" in reading.rejects[0].message
    assert len(reading.documents) == 1
    assert not children()


def pdf_of(*objects: bytes, root: int = 1) -> bytes:
    """A PDF with these objects, numbered from 1."""
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = len(data)
    data += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    data += b"".join(b"%010d 00000 n \n" % place for place in places)
    return data + b"trailer\n<</Size %d/Root %d 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1, root, table)  # fmt: skip


def test_a_pdf_that_expands_to_gigabytes_stays_in_the_child(folder: Path) -> None:
    packer, packed = zlib.compressobj(9), b""
    for _ in range(1200):
        packed += packer.compress(b"q Q " * 250_000)  # 1.2 GB
    packed = zlib.compress(packed + packer.flush(), 9)
    stream = (
        b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n" % len(packed)
        + packed
        + b"\nendstream"
    )
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>"
    data = pdf_of(
        b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>", page, stream
    )
    assert len(data) < 100_000
    (folder / "bomb.pdf").write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reading = read(folder, max_megabytes=400, max_seconds=30)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert set(codes(reading)) == {"bomb.pdf"}
    assert len(reading.documents) == 1
    assert not children()


@pytest.mark.parametrize("kids", [b"[2 0 R]", b"[2 0 R 3 0 R]"])
def test_an_endless_page_tree_is_rejected(folder: Path, kids: bytes) -> None:
    data = pdf_of(b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids" + kids + b"/Count 9>>",
                  b"<</Type/Pages/Parent 2 0 R/Kids[2 0 R]/Count 9>>")  # fmt: skip
    (folder / "loop.pdf").write_bytes(data)
    reading = read(folder, max_seconds=10)
    assert set(codes(reading)) == {"loop.pdf"}
    assert len(reading.documents) == 1


def test_a_huge_line_is_read_or_rejected_within_the_limits(folder: Path) -> None:
    (folder / "line.txt").write_bytes(("水" * 20_000_000).encode())  # 60 MB
    reading = read(folder, max_megabytes=256)
    assert "line.txt" in {d.source for d in reading.documents} | set(codes(reading))
    (folder / "larger.txt").write_bytes(b"A" * (257 << 20))
    assert codes(read(folder / "larger.txt", max_megabytes=256)) == {"larger.txt": "limits"}


def test_no_child_is_left_when_the_caller_fails(folder: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done == total:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        read_documents([folder], DocumentSettings(), fail)
    assert not children()


def test_the_child_ends_with_its_parent(folder: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from embedtune.documents.read import *\n"
        "def stop(done, total):\n"
        "    if done: os.kill(os.getpid(), 9)\n"
        "read_documents([Path(sys.argv[1])], DocumentSettings(), stop)\n"
    )
    (folder / "second.md").write_text("Another document in this folder.")
    subprocess.run([sys.executable, "-c", code, str(folder)], timeout=60, check=False)
    for _ in range(50):
        listed = subprocess.run(["ps", "-eo", "ppid=,args="], capture_output=True, text=True).stdout
        if not any(
            line.split()[0] == "1" and "documents.worker" in line for line in listed.splitlines()
        ):
            return
        time.sleep(0.1)
    raise AssertionError("an orphan is left")


def test_a_module_of_the_working_folder_does_not_stand_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "yaml.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(folder)
    assert len(read(folder).documents) == 1


# ---- text inside


def test_control_characters_are_replaced_and_counted(folder: Path) -> None:
    (folder / "a.txt").write_bytes(
        "One\x00two\x1b[31m and \ufeffa mark in the words.\x0cNext page".encode()
    )
    document = next(d for d in read(folder).documents if d.source == "a.txt")
    assert document.text == "One\ufffdtwo\ufffd[31m and a mark in the words.\nNext page"
    assert (document.meta["replaced_characters"], document.meta["removed_marks"]) == ("2", "1")


def test_kangxi_radicals_become_ideographs(folder: Path) -> None:
    (folder / "a.txt").write_text("项⽬的营业收⼊，⻓期、⻚数、⼈⺠。")
    document = next(d for d in read(folder).documents if d.source == "a.txt")
    assert document.text == "项目的营业收入，长期、页数、人民。"


@pytest.mark.parametrize("setting", ["replace", "reject"])
def test_broken_bytes_follow_their_setting(folder: Path, setting: str) -> None:
    lines = ["阀门要在每天早上检查一次，并且写进日志。".encode()] * 50
    lines[11] += b"\xff"
    (folder / "a.txt").write_bytes(b"\n".join(lines))
    reading = read(folder, broken_bytes=setting)
    if setting == "reject":
        assert codes(reading) == {"a.txt": "encoding"}
    else:
        assert reading.documents[0].meta["replaced_bytes"] == "1"
        assert "a.txt:12: 1 broken bytes replaced by U+FFFD" in reading.notes


SIMPLIFIED = (
    "证券发行注册制的具体范围、实施步骤，由国务院规定。公司首次公开发行新股，应当符合下列条件。"
)
TRADITIONAL = (
    "證券發行註冊制的具體範圍、實施步驟，由國務院規定。公司首次公開發行新股，應當符合條件。"
)
JAPANESE = (
    "有価証券の発行に関する手続きは、法律の定めるところによります。会社は、条件を満たします。"
)
WESTERN = "Für die Übernahme gelten folgende Maßnahmen: größere Änderungen sind zu bestätigen."


@pytest.mark.parametrize(
    ("text", "encoding", "named"),
    [
        (SIMPLIFIED, "gbk", "gb18030"),
        (TRADITIONAL, "big5", "big5hkscs"),
        (JAPANESE, "shift_jis", "cp932"),
        (WESTERN, "cp1252", "cp1252"),
        (SIMPLIFIED, "utf-16", "utf-16"),
        (SIMPLIFIED, "utf-16-le", "utf-16-le"),
        (WESTERN, "utf-16-be", "utf-16-be"),
    ],
)
def test_the_encoding_that_was_found_is_recorded(
    folder: Path, text: str, encoding: str, named: str
) -> None:
    (folder / "a.txt").write_bytes(text.encode(encoding))
    document = next(d for d in read(folder).documents if d.source == "a.txt")
    assert (document.text, document.meta["encoding"]) == (text, named)


def test_an_encoding_that_cannot_be_told_is_rejected(folder: Path) -> None:
    (folder / "a.txt").write_bytes("Książka została wydana, więc należy złożyć.".encode("cp1250"))
    reading = read(folder)
    assert codes(reading) == {"a.txt": "encoding"}
    assert "best guess" in reading.rejects[0].message


def test_readers_open_no_connection(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        calls: list[object] = []

        def listen() -> None:
            try:
                calls.append(server.accept())
            except TimeoutError:
                return

        thread = threading.Thread(target=listen)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        (folder / "a.html").write_text(
            f'<!DOCTYPE html SYSTEM "{url}"><base href="{url}"><link rel=stylesheet href="{url}">'
            f'<p>Words <img src="{url}" alt="of a pump"></p><iframe src="{url}"></iframe>'
        )
        (folder / "b.md").write_text(
            f"![a picture]({url}) and words of the text\n\n<img src='{url}'>"
        )
        assert len(read(folder).documents) == 3
        thread.join()
        assert calls == []


# ---- rows


def write(folder: Path, name: str) -> Callable[[str], None]:
    return lambda text: (folder / name).write_text(text, "utf-8", newline="")  # type: ignore[return-value]


def test_a_csv_with_a_text_column_gives_a_document_a_row(folder: Path) -> None:
    (folder / "good.md").unlink()
    write(folder, "a.csv")(
        'id,title,text,部门\n7,Valve,"Open it first,\nthen wait.",水务\n'
        '8,,先关闭阀门再检查。,NA\n9,Empty,,x\n7,Valve,"Open it first,\nthen wait.",水务\n'
    )
    reading = read(folder)
    first, second = reading.documents
    assert first.text == "Open it first,\nthen wait.\n\n部门: 水务"
    assert (first.title, first.source, first.meta["row_id"]) == ("Valve", "a.csv:2", "7")
    assert (second.text, second.title) == ("先关闭阀门再检查。\n\n部门: NA", "a")
    assert [(r.code, r.line) for r in reading.rejects] == [("no-text", 5)]
    assert [(d.file, d.line) for d in reading.duplicates] == [("a.csv", 6)]
    assert (reading.counts.total, reading.counts.accepted) == (4, 2)
    assert any("one document a row" in note for note in reading.notes)


def test_a_csv_without_a_text_column_is_one_table(folder: Path) -> None:
    write(folder, "a.tsv")("part\tprice\nvalve | small\t3\npipe\t4\n")
    reading = read(folder)
    assert reading.documents[0].text == (
        "| part | price |\n| --- | --- |\n| valve \\| small | 3 |\n| pipe | 4 |"
    )
    assert any("2 rows without a text column" in note for note in reading.notes)


def test_rows_of_the_wrong_length_are_rejected_with_their_line(folder: Path) -> None:
    write(folder, "a.csv")("title,text\nA,B words,C\nD,E words here\n")
    reading = read(folder)
    assert [(r.file, r.line, r.code) for r in reading.rejects] == [("a.csv", 2, "cells")]
    assert [d.text for d in reading.documents] == ["E words here", GOOD]


def test_json_lines_give_a_document_a_row(folder: Path) -> None:
    (folder / "good.md").unlink()
    write(folder, "a.jsonl")(
        '{"_id": "x1", "title": "Valve", "text": "Open it first."}\n{"text": 5}\n{"title": "no"}\n'
        '{"text": "Half a \\ud83d character."}\n{"text": \n'
    )
    reading = read(folder)
    assert [(d.title, d.text, d.source) for d in reading.documents] == [
        ("Valve", "Open it first.", "a.jsonl:1"),
        ("a", "Half a \ufffd character.", "a.jsonl:4"),
    ]
    assert [(r.line, r.code) for r in reading.rejects] == [(2, "field"), (3, "field"), (5, "json")]


def test_a_file_whose_rows_are_all_broken_names_them(folder: Path) -> None:
    write(folder, "a.jsonl")('{"q": 1}\n{"q": 2}\n')
    assert [(r.line, r.code) for r in read(folder).rejects] == [(1, "field"), (2, "field")]
