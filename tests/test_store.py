import sqlite3
import subprocess
import sys
import threading

import numpy as np
import pytest

from embedtune.errors import ConfigError, IntegrityError
from embedtune.store import MIGRATIONS, Store, StoredAnswer, StoredBatch, canonical, content_key

ANSWER = StoredAnswer("m", "{}", "答案 😀", "stop", 3, None, '{"raw": 1}')


def test_an_answer_comes_back_as_it_was_after_reopening(tmp_path):
    with Store(tmp_path / "deep" / "store.sqlite") as store:
        store.put_answer("k", ANSWER).result()
    with Store(tmp_path / "deep" / "store.sqlite") as store:
        assert store.answer("k") == ANSWER
        assert store.answer("other") is None


def test_a_first_answer_is_never_replaced(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put_answer("k", ANSWER).result()
        store.put_answer("k", StoredAnswer("m", "{}", "later")).result()
        assert store.answer("k") == ANSWER


def test_broken_characters_are_cleaned_before_storing(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put_answer("k", StoredAnswer("m", "{}", "a\ud83db\x00c", raw="\udc00")).result()
        stored = store.answer("k")
    assert stored is not None
    assert stored.text.encode("utf-8")  # valid UTF-8
    assert "\x00" not in stored.text


def test_many_keys_are_looked_up_in_parts(tmp_path):
    with Store(tmp_path / "s") as store:
        for future in [store.put_answer(f"k{number}", ANSWER) for number in range(1200)]:
            future.result()
        found = store.answers([f"k{number}" for number in range(0, 2400, 2)])
    assert len(found) == 600


def test_threads_may_write_and_read_at_the_same_time(tmp_path):
    with Store(tmp_path / "s") as store:

        def work(name):
            for number in range(30):
                store.put_answer(f"{name}-{number}", ANSWER).result()
                assert store.answer(f"{name}-{number}") == ANSWER

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        keys = [f"{name}-{number}" for name in "abcd" for number in range(30)]
        assert len(store.answers(keys)) == 120


def test_vectors_are_kept_to_the_bit(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    with Store(tmp_path / "s") as store:
        store.put_vectors(dict(zip("abc", rows, strict=True)))
        found = store.vectors(["c", "a", "x"])
    assert set(found) == {"a", "c"}
    assert np.array_equal(found["c"], rows[2])


def test_faults_are_kept_with_the_body_as_received(tmp_path):
    with Store(tmp_path / "s") as store:
        store.put_fault("k", "html", "a web page", "<html>").result()
        assert store.faults() == [("k", "html", "a web page", "<html>")]


def test_equal_content_has_equal_keys():
    one = {"model": "m", "messages": ["问", "b"], "schema": {"b": 1, "a": 2}}
    other = {"schema": {"a": 2, "b": 1}, "messages": ["问", "b"], "model": "m"}
    assert content_key(one) == content_key(other) != content_key({**one, "model": "n"})
    assert canonical(one).isascii()


def test_answers_of_an_older_version_are_kept(tmp_path):
    path = tmp_path / "s"
    connection = sqlite3.connect(path)
    connection.executescript(MIGRATIONS[0] + "PRAGMA user_version=1;")
    connection.execute(
        "INSERT INTO answers VALUES ('k', 'm', '{}', '答案 😀', 'stop', 3, NULL, ?, '2026-01-01')",
        ('{"raw": 1}',),
    )
    connection.commit()
    connection.close()
    with Store(path) as store:
        assert store.answer("k") == ANSWER
        store.put_answer("j", StoredAnswer("m", "{}", "x", batch="batch_1")).result()
    with Store(path) as store:
        assert store.answers(["j", "k"])["j"].batch == "batch_1"


def test_a_batch_is_open_until_it_has_ended(tmp_path):
    one = StoredBatch("d1", "m", "h", ("a", "b"))
    with Store(tmp_path / "s") as store:
        store.put_batch(one).result()
        store.put_batch(StoredBatch("d2", "m", "another host", ("c",))).result()
        store.put_batch(StoredBatch("d3", "m", "h", ("c",))).result()
        assert store.batches() == 3
        store.put_batch_id("d3", "batch_3").result()
        found = store.open_batches("m", "h")
        assert [(f.digest, f.keys, f.id) for f in found] == [
            ("d1", ("a", "b"), ""), ("d3", ("c",), "batch_3")]  # fmt: skip
        assert all(f.created for f in found)
        store.end_batch("d1", "never made").result()
        assert [f.digest for f in store.open_batches("m", "h")] == ["d3"]
        assert store.open_batches("another model", "h") == []
        assert store.batches() == 3


@pytest.mark.parametrize("state", ["empty file", "no table"])
def test_a_file_killed_before_its_first_table_begins_again(tmp_path, state):
    path = tmp_path / "s"
    path.touch()
    if state == "no table":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.close()
    with Store(path) as store:
        store.put_answer("k", ANSWER).result()
        assert store.answer("k") == ANSWER


def test_settings_of_the_file_are_the_durable_ones(tmp_path):
    with Store(tmp_path / "s") as store:
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_file_that_is_no_database_says_what_to_do(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(b"something else entirely " * 100)
    with pytest.raises(IntegrityError, match=r"(?s)damaged.*do not delete.*recover"):
        Store(path)
    assert path.read_bytes().startswith(b"something else")  # untouched


def test_a_damaged_page_is_found_when_opening(tmp_path):
    path = tmp_path / "s"
    with Store(path) as store:
        for number in range(200):
            store.put_answer(f"k{number}", StoredAnswer("m", "{}", "x" * 500)).result()
    data = bytearray(path.read_bytes())
    data[8192:20480] = b"\xff" * 12288
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged"):
        Store(path)


def test_a_store_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "s"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(IntegrityError, match="newer embedtune"):
        Store(path)


def test_a_folder_in_the_place_of_the_file_is_a_configuration_fault(tmp_path):
    with pytest.raises(ConfigError, match="cannot be opened"):
        Store(tmp_path)


def test_what_was_reported_as_stored_survives_a_kill(tmp_path):
    program = f"""
import os, pathlib
from embedtune.store import Store, StoredAnswer
store = Store(pathlib.Path({str(tmp_path / "s")!r}))
for number in range(50):
    store.put_answer(f"k{{number}}", StoredAnswer("m", "{{}}", "x")).result()
os.kill(os.getpid(), 9)
"""
    child = subprocess.run([sys.executable, "-c", program], check=False)
    assert child.returncode == -9
    with Store(tmp_path / "s") as store:
        assert len(store.answers([f"k{number}" for number in range(50)])) == 50
