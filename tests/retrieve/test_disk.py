"""The store in a folder: exact, whole after any stop, never silently damaged."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedtune.errors import ConfigError, IntegrityError, LockedError
from embedtune.records import Chunk
from embedtune.retrieve.dense import nearest
from embedtune.retrieve.disk import DiskStore
from embedtune.retrieve.stores import IndexInfo, digest_of, followed, open_store

INFO = IndexInfo("model@0123456789abcdef", "model", 8, "cosine")


def passage(id: str, text: str = "") -> Chunk:
    text = text or f"passage {id}"
    return Chunk(id, f"doc of {id}", 3, 3 + len(text), "Title", text, ("A", "B"), 7, "en",
                 source="a.pdf")  # fmt: skip


def passages(count: int, first: int = 0) -> list[Chunk]:
    return [passage(f"p{number}") for number in range(first, first + count)]


def vectors(count: int, dimension: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension), np.float32)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def store(folder):
    """Of 40 passages in four portions."""
    own = DiskStore(folder)
    own.create(INFO)
    for first in range(0, 40, 10):
        own.put(passages(10, first), vectors(40)[first : first + 10])
    yield own
    own.close()


@pytest.mark.parametrize("similarity", ["cosine", "dot", "euclidean"])
def test_hits_are_those_of_exact_search_however_the_passages_came(folder, similarity):
    made = vectors(900)
    made[500:540] = made[3]  # equal vectors, ordered by a hash of the id
    chunks = passages(900)
    own = DiskStore(folder)
    own.create(IndexInfo("m", "m", 8, similarity))
    for first in range(0, 900, 20):
        own.put(chunks[first : first + 20], made[first : first + 20])
    own.remove([f"p{number}" for number in range(100, 150)])
    made[7] = -made[7]
    own.put([chunks[7]], made[7:8])
    own.close()

    queries = np.concatenate([vectors(30, seed=1), made[3:4], 50 * made[9:10]])
    left = [number for number in range(900) if not 100 <= number < 150]
    ids = [f"p{number}" for number in left]
    exact = nearest(queries, made[left], ids, 15, similarity=similarity)
    expected = [
        [(ids[row], score) for row, score in zip(rows, scores, strict=True)]
        for rows, scores in zip(exact.indices, exact.scores, strict=True)
    ]
    assert DiskStore(folder).nearest(queries, 15) == expected


def test_what_was_put_comes_back_as_it_was(folder):
    chunks = [
        passage("数据/1\t\u2028", "灯闪烁时更换墨盒。🖨️ “引号” 'it''s'; DROP TABLE x; --"),
        passage('{"id": "a"}', "line\nbreak\r\n" + "x" * 100_000),
        passage(" ", "."),
    ]
    own = DiskStore(folder)
    own.create(INFO)
    own.put(chunks, vectors(3))
    own.close()
    again = DiskStore(folder)
    assert again.info() == INFO
    assert again.digests() == {chunk.id: digest_of(chunk) for chunk in chunks}
    assert again.chunks([chunk.id for chunk in chunks]) == chunks
    assert list(again.all_chunks()) == sorted(chunks, key=lambda chunk: chunk.id)
    assert np.array_equal(again.vectors(['{"id": "a"}', " "]), vectors(3)[[1, 2]])
    for read in (again.chunks, again.vectors):
        with pytest.raises(KeyError):
            read(["none"])


def test_an_empty_index_finds_nothing(folder):
    assert DiskStore(folder).info() is None
    assert not folder.exists()
    own = DiskStore(folder)
    own.create(INFO)
    own.put([], vectors(0))
    own.remove(["p1"])
    assert (own.digests(), list(own.all_chunks())) == ({}, [])
    assert own.nearest(vectors(2), 5) == [[], []]


def test_more_than_there_is_gives_all(store):
    [hits] = store.nearest(vectors(1), 1000)
    assert {hit.chunk for hit in hits} == {f"p{number}" for number in range(40)}
    assert hits[0].chunk == "p0"
    assert hits[0].score == pytest.approx(1)


def test_a_passage_of_the_same_id_is_replaced(store, folder):
    store.put([passage("p5", "another text")], -vectors(40)[5:6])
    store.close()
    again = DiskStore(folder)
    assert len(again.digests()) == 40
    assert again.chunks(["p5"])[0].text == "another text"
    [hits] = again.nearest(-vectors(40)[5:6], 40)
    assert [hit.chunk for hit in hits].count("p5") == 1
    assert hits[0].chunk == "p5"


def test_what_was_removed_is_gone_from_the_disk_too(store, folder):
    store.remove([f"p{number}" for number in range(12)])
    everything = b"".join(path.read_bytes() for path in folder.iterdir())
    assert b"passage p11" not in everything
    assert b"passage p12" in everything
    assert set(DiskStore(folder).digests()) == {f"p{number}" for number in range(12, 40)}
    store.remove(list(store.digests()))
    assert DiskStore(folder).digests() == {}


def test_files_stay_few(folder):
    own = DiskStore(folder)
    own.create(INFO)
    for number in range(50):
        own.put(passages(1, number), vectors(1, seed=number))
    assert len(list(folder.glob("vectors-*.npy"))) <= 3 + 15  # 50 = 3 · 16 + 2
    assert len(DiskStore(folder).digests()) == 50


def test_a_reader_keeps_what_it_opened(store, folder):
    reader = DiskStore(folder)
    before = reader.nearest(vectors(40), 3)
    store.remove([f"p{number}" for number in range(20)])  # files are written anew
    store.put(passages(5, 100), vectors(5, seed=9))
    assert reader.nearest(vectors(40), 3) == before
    assert reader.chunks(["p0"]) == [passage("p0")]
    now = set(DiskStore(folder).digests())
    assert "p0" not in now
    assert "p100" in now


def test_another_writer_is_told_to_wait(store, folder):
    other = DiskStore(folder)
    assert len(other.digests()) == 40
    with pytest.raises(LockedError, match="in use by process"):
        other.put(passages(1, 50), vectors(1))
    store.put(passages(1, 60), vectors(1))
    store.close()
    other.put(passages(1, 50), vectors(1))
    other.close()
    assert {"p50", "p60"} <= set(DiskStore(folder).digests())


def test_a_new_beginning_forgets_everything(store, folder):
    old = DiskStore(folder)
    old.digests()
    info = IndexInfo("other", "other", 4, "dot", "dense", 0.3)
    store.create(info)
    store.put(passages(2), vectors(2, 4))
    assert old.chunks(["p39"]) == [passage("p39")]
    again = DiskStore(folder)
    assert (again.info(), set(again.digests())) == (info, {"p0", "p1"})
    assert len(list(folder.glob("vectors-*.npy"))) == 1


@pytest.mark.parametrize("name", ["vectors", "passages", "rows", "bm25"])
@pytest.mark.parametrize("fault", ["one byte", "cut", "missing", "of another index"])
def test_damage_is_found_and_named(store, folder, tmp_path, name, fault):
    store.keep("bm25", ".npz", lambda path: path.write_bytes(b"kept words"))
    store.close()
    path = sorted(folder.glob(f"{name}-*"))[0]
    data = path.read_bytes()
    if fault == "one byte":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif fault == "cut":
        path.write_bytes(data[:-1])
    elif fault == "missing":
        path.unlink()
    else:
        other = DiskStore(tmp_path / "other")
        other.create(INFO)
        other.put(passages(10, 500), vectors(10, seed=5))
        other.keep("bm25", ".npz", lambda path: path.write_bytes(b"other words"))
        other.close()
        shutil.copy(sorted((tmp_path / "other").glob(f"{name}-*"))[0], path)
    with pytest.raises(IntegrityError) as caught:
        DiskStore(folder).info()
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": 2}', '{"format": 1, "info": {}}'])
def test_a_damaged_manifest_is_named(store, folder, text):
    store.close()
    (folder / "index.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"index\.json"):
        DiskStore(folder).info()
    fresh = DiskStore(folder)
    fresh.create(INFO)
    fresh.put(passages(1), vectors(1))
    assert set(DiskStore(folder).digests()) == {"p0"}


def test_vectors_that_do_not_fit_are_refused(store, folder):
    bad = vectors(2)
    bad[1, 3] = np.nan
    for made, said in ((vectors(2, 4), "4 numbers"), (bad, "NaN"), (vectors(3), "3 vectors for 2")):
        with pytest.raises(IntegrityError, match=said):
            store.put(passages(2, 70), made)
    with pytest.raises(IntegrityError, match="a query has 4 numbers"):
        store.nearest(vectors(1, 4), 3)
    assert len(store.digests()) == len(DiskStore(folder).digests()) == 40


def test_an_error_while_writing_leaves_the_index_as_it_was(store, folder):
    def fail(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    twice = [passage("p1", "new"), passage("p1", "newer")]
    with pytest.raises(ValueError, match="one id"):
        store.put(twice, vectors(2))
    with pytest.raises(Exception, match="free some space"):
        store.keep("bm25", ".npz", fail)
    assert store.chunks(["p1"]) == DiskStore(folder).chunks(["p1"]) == [passage("p1")]
    assert store.derived("bm25") is None


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="other files"):
        DiskStore(tmp_path).create(INFO)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(ConfigError, match="is a file"):
        DiskStore(tmp_path / "letter.txt")


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_disk import INFO, passages, vectors
from embedtune.retrieve.disk import DiskStore
store = DiskStore(Path(sys.argv[1]))
store.create(INFO)
for number in range(10_000):
    store.put(passages(3, number), vectors(3, seed=number))  # two of three are replaced
    print(number, flush=True)
"""


def test_a_kill_leaves_the_old_index_or_the_new(folder):
    command = [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        done = -1
        for line in process.stdout:
            done = int(line)
            if done == 41:
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert done >= 41
    again = DiskStore(folder)
    last = len(again.digests()) - 3  # number of the last portion that counts
    assert last in (done, done + 1)
    assert set(again.digests()) == {f"p{number}" for number in range(last + 3)}
    for number in range(last + 1):  # replaced twice, by the two portions after its own
        assert np.array_equal(again.vectors([f"p{number}"])[0], vectors(3, seed=number)[0])
    assert again.chunks(["p7"]) == [passage("p7")]
    again.put(passages(1, 900), vectors(1))
    counted = {path.name.split("-")[1][:6] for path in folder.glob("vectors-*")}
    assert {path.name.split("-")[1][:6] for path in folder.glob("rows-*")} == counted


def test_faiss_finds_what_it_says_and_is_left_out_after_a_change(folder):
    centres = vectors(50, 16, seed=1)
    made = (centres[np.arange(6000) % 50] + 0.5 * vectors(6000, 16, seed=2)).astype(np.float32)
    own = DiskStore(folder)
    own.create(IndexInfo("m", "m", 16, "cosine"))
    own.put(passages(6000), made)
    queries = (centres + 0.5 * vectors(50, 16, seed=3)).astype(np.float32)
    exact = own.nearest(queries, 10)
    recall = own.build_approximate()
    again = DiskStore(folder)
    found = again.nearest(queries, 10)
    shared = [len({*map(tuple, one)} & {*map(tuple, other)}) / 10
              for one, other in zip(exact, found, strict=True)]  # fmt: skip
    assert recall >= 0.98
    assert np.mean(shared) > 0.95
    assert again.figures("approximate") == {"probes": own.figures("approximate")["probes"],
                                            "recall": recall}  # fmt: skip
    own.put([passage("new")], queries[:1])
    assert DiskStore(folder).derived("approximate") is None
    assert own.nearest(queries[:1], 1)[0][0].chunk == "new"
    assert not list(folder.glob("approximate-*"))


def test_few_passages_need_no_faiss(store):
    with pytest.raises(ConfigError, match="40 passages"):
        store.build_approximate()


def test_a_pointer_is_followed(store, folder, tmp_path):
    store.close()
    alias = tmp_path / "alias"
    alias.mkdir()
    for target in ("../index", str(folder)):
        (alias / "current.json").write_text(f'{{"place": "{target}"}}')
        assert set(open_store(alias).digests()) == set(DiskStore(folder).digests())
    (alias / "current.json").write_text('{"place": "weaviate://there"}')
    assert followed(alias) == "weaviate://there"
    with pytest.raises(ConfigError, match="no such store"):
        open_store(alias)
    for damaged in ('{"place": ""}', "[]", '{"place"'):
        (alias / "current.json").write_text(damaged)
        with pytest.raises(IntegrityError, match=r"current\.json"):
            open_store(alias)
    with pytest.raises(ConfigError, match="empty"):
        open_store(" ")
