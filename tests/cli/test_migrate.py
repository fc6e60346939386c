"""embedtune migrate, from plan to drop."""

import json
import signal
import time

import pytest

from embedtune.embed.hashing import HashingEmbedder
from embedtune.records import Chunk
from embedtune.retrieve.index import prepare, update
from embedtune.retrieve.stores import open_store

WORDS = ["night", "shift", "battery", "dock", "driver"]
WORDS += ["apple", "crate", "probe", "fault", "winter"]
RADIO = "a new radio 新的收音机"


def passages(count=40):
    texts = [f"{WORDS[n % 10]} {WORDS[n // 10]} 第{n}条规定" for n in range(count)]
    return [Chunk(f"p{n}", "d", n, n + 1, "", text) for n, text in enumerate(texts)]


def make(place, chunks, dimension=64):
    embedder = HashingEmbedder(dimension)
    store = open_store(place)
    prepare(store, embedder, source=f"hashing:{dimension}", how="dense")
    update(store, chunks, embedder)
    store.close()


def found(command, live, query):
    done = command("search", query, "--index", live, "-k", 1, "--json")
    assert done.code == 0, done.err
    return done.json["hits"][0]["id"]


def test_the_whole_way(command, tmp_path):
    live, new = tmp_path / "live", tmp_path / "new"
    make(live, passages())
    plan = command("migrate", "plan", live, "--model", "hashing:32", "--json")
    assert plan.code == 0, plan.err
    assert (plan.json["passages"], plan.json["texts"]) == (40, 40)
    assert plan.json["bytes"] == 40 * 32 * 4
    assert plan.json["characters"] == sum(len(chunk.text) for chunk in passages())
    assert plan.json["seconds"] > 0
    assert not new.exists()

    run = command("migrate", "run", live, "--model", "hashing:32", "--to", new, "--json")
    assert run.code == 0, run.err
    assert run.json["embedded"] == 40
    assert (run.json["model"], run.json["how"]) == ("hashing-32", "dense")

    # the old index goes on changing, and serves
    make(live, [*passages()[:38], Chunk("p99", "d", 99, 100, "", RADIO)])
    assert found(command, live, RADIO) == "p99"
    status = command("migrate", "status", live, "--to", new, "--json")
    assert status.json["gap"] == {"passages": 39, "missing": 1, "changed": 0, "surplus": 2}
    early = command("migrate", "switch", live, "--to", new)
    assert early.code == 2
    assert "1 missing" in early.err
    again = command("migrate", "run", live, "--model", "hashing:32", "--to", new, "--json")
    assert (again.json["embedded"], again.json["removed"]) == (1, 2)
    left = command("migrate", "plan", live, "--model", "hashing:32", "--to", new, "--json")
    assert (left.json["texts"], left.json["seconds"]) == (0, 0)

    switched = command("migrate", "switch", live, "--to", new)
    assert switched.code == 0, switched.err
    assert str(new) in switched.out
    assert found(command, live, RADIO) == "p99"
    assert command("migrate", "status", live, "--json").json["complete"]
    assert command("migrate", "rollback", live).code == 0
    assert command("migrate", "switch", live, "--to", new).code == 0

    refused = command("migrate", "drop", live)
    assert refused.code == 2
    assert "39 passages" in refused.err
    assert "--yes" in refused.err
    assert command("migrate", "drop", live, "--yes").code == 0
    assert [path.name for path in live.iterdir()] == ["current.json"]
    assert found(command, live, RADIO) == "p99"
    assert command("migrate", "rollback", live).code == 2


def test_an_index_moves_from_a_folder_into_a_database(command, tmp_path):
    old, live = tmp_path / "old", tmp_path / "live"
    make(old, passages())
    place = f"milvus:{tmp_path}/m.db?collection=docs_v2"
    run = command("migrate", "run", old, "--model", "hashing:32", "--to", place, "--json")
    assert run.code == 0, run.err
    switched = command("migrate", "switch", live, "--to", place, "--old", old, "--alias", "docs")
    assert switched.code == 0, switched.err
    assert json.loads((live / "current.json").read_text()) == {
        "place": place, "previous": str(old),
    }  # fmt: skip
    assert found(command, live, "battery night 第1条规定") == "p1"
    assert found(command, place.replace("docs_v2", "docs"), "battery night 第1条规定") == "p1"
    assert command("migrate", "rollback", live).code == 0
    assert command("migrate", "drop", live, "--yes").code == 0
    assert "holds no index" in command("search", "x", "--index", place).err


def test_a_killed_run_loses_at_most_a_portion(child, command, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    many = [Chunk(f"p{n}", "d", n, n + 1, "", f"word{n} " * 60) for n in range(3000)]
    make(old, many, 16)
    arguments = ("migrate", "run", old, "--model", "hashing:2048", "--to", new, "--json")
    running = child(*arguments)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(new.glob("vectors-*.npy"))) < 2:
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    kept = len(open_store(new).digests())
    assert kept
    assert kept % 256 == 0
    done = command(*arguments)
    assert done.code == 0, done.err
    assert done.json["embedded"] == 3000 - kept
    assert done.json["gap"] == {"passages": 3000, "missing": 0, "changed": 0, "surplus": 0}


def test_a_threshold_is_found_again(command, tmp_path, small_beir):
    from embedtune.datasets.source import read_source

    old, new = tmp_path / "old", tmp_path / "new"
    chunks = read_source(small_beir).data.chunks
    make(old, chunks, 512)
    make(new, chunks, 32)
    asked = tmp_path / "asked.txt"
    asked.write_text("battery night shift\nwinter fault report\n夜班电池\n", "utf-8")
    common = ("migrate", "threshold", old, "--to", new, "--threshold", 0.3, "--json")
    by_share = command(*common, "--queries", asked)
    assert by_share.code == 0, by_share.err
    assert (by_share.json["by"], by_share.json["queries"], by_share.json["hits"]) == (
        "share",
        3,
        30,
    )
    assert abs(by_share.json["old_share"] - by_share.json["new_share"]) < 0.1
    assert by_share.json["new"] > 0.3  # fewer numbers, more words by chance in common
    by_right = command(*common, "--data", small_beir)
    assert by_right.code == 0, by_right.err
    assert by_right.json["queries"] == 24
    assert by_right.json["new_precision"] >= by_right.json["old_precision"] > 0


def test_a_plan_tells_the_cost_of_a_service_and_asks_it_nothing(command, tmp_path):
    make(tmp_path / "old", passages())
    plan = ("migrate", "plan", tmp_path / "old", "--model", "openai:text-embedding-3-small")
    priced = command(*plan, "--set", "embedding.price=2.5", "--json").json
    assert priced["paid"]
    assert priced["usd"] == pytest.approx(priced["tokens"] * 2.5 / 1e6)
    # two words of up to 9 letters, a number, three tokens for four Chinese characters
    assert priced["tokens"] == 40 * 6
    assert priced["seconds"] is None
    known = command(*plan, "--json").json
    assert 0 < known["usd"] < priced["usd"]
    shown = command(*plan)
    assert "USD" in shown.out
    other = ("migrate", "plan", tmp_path / "old", "--model", "openai:nobody-knows-it")
    assert command(*other, "--json").json["usd"] is None


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("jump live", "expected one of plan"),
        ("run live --to new", "expected --model"),
        ("run live --model hashing:32", "expected --to"),
        ("plan live --model hashing:32 --yes", "takes no --yes"),
        ("run live --model hashing:64 --to new", "made the old index already"),
        ("run live --model hashing:32 --to live", "is the old index itself"),
        ("run nowhere --model hashing:32 --to new", "holds no index"),
        ("switch live --to nowhere", "holds no index"),
        ("switch milvus:x.db --to live", "expected a folder that stands"),
        ("switch live --to other --alias docs", "knows none"),
        ("rollback live", "no index of before"),
        ("drop live", "no index of before"),
        ("threshold live --to other --threshold 0.3", "--queries or --data"),
    ],
)
def test_wrong_usage_says_what_was_expected(arguments, fault, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "live", passages(3))
    make(tmp_path / "other", passages(3), 32)
    done = command("migrate", *arguments.split())
    assert done.code == 2, (done.out, done.err)
    assert fault in done.err
