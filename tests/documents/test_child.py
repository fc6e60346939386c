import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedtune.documents.child import Child, Row, Stopped

Make = Callable[..., Child]
TASK = {"seconds": 60}


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """A child whose handler has this body."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    made: list[Child] = []

    def make(body: str, *, megabytes: int = 512, seconds: int = 60) -> Child:
        name = f"handler_{tmp_path.name}_{len(made)}"
        lines = "\n    ".join(body.splitlines())
        (tmp_path / f"{name}.py").write_text(
            "import os, socket, subprocess, sys, time\n"
            "from embedtune.documents.child import serve\n"
            f"def handle(task, ask):\n    {lines}\n"
            "serve(handle)\n"
        )
        made.append(Child(name, megabytes=megabytes, seconds=seconds))
        return made[-1]

    yield make
    for each in made:
        each.end()


def alive(pid: int) -> bool:
    """Whether it runs; a process that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


def test_one_process_answers_many_tasks_and_may_print(child: Make) -> None:
    own = child("print('noise', flush=True)\nos.write(1, b'more')\n"
                "return {'pid': os.getpid(), 'twice': task['word'] * 2}")  # fmt: skip
    first = own.ask({**TASK, "word": "水\udcff"})
    second = own.ask({**TASK, "word": "b"})
    assert first["twice"] == "水\udcff水\udcff"
    assert second == {"pid": first["pid"], "twice": "bb"}


def test_it_can_ask_and_its_time_stands_still_meanwhile(child: Make) -> None:
    own = child(
        "seen = [ask({'page': n})['text'] for n in range(3)]\nreturn {'text': ' '.join(seen)}",
        seconds=4,
    )
    own.ask(TASK, lambda question: {"text": ""})  # started and warm

    def slowly(question: Row) -> Row:
        time.sleep(1.5)  # 4.5 s in all
        return {"text": f"page {question['page']}"}

    assert own.ask({"seconds": 4}, slowly) == {"text": "page 0 page 1 page 2"}


def test_one_that_hangs_is_stopped_with_what_it_started_and_another_one_goes_on(
    child: Make, tmp_path: Path
) -> None:
    own = child(
        "if task.get('hang'):\n"
        "    started = subprocess.Popen(['sleep', '600'])\n"
        "    os.kill(started.pid, 0)\n    ask({'pids': [os.getpid(), started.pid]})\n"
        "    time.sleep(600)\n"
        "return {'pid': os.getpid()}",
        seconds=5,
    )
    pids: list[int] = []

    def told(question: Row) -> Row:
        pids.extend(question["pids"])
        return {}

    with pytest.raises(Stopped) as caught:
        own.ask({**TASK, "hang": True}, told)
    assert caught.value.late
    assert len(pids) == 2
    assert all(map(gone, pids))
    assert own.ask(TASK)["pid"] not in pids


@pytest.mark.parametrize("body", ["os._exit(3)", "os.abort()"])
def test_one_that_breaks_down_is_not_late(child: Make, body: str) -> None:
    with pytest.raises(Stopped) as caught:
        child(body).ask(TASK)
    assert not caught.value.late


def test_memory_is_limited(child: Make) -> None:
    own = child(
        "try:\n    bytearray(600 << 20)\nexcept MemoryError:\n    return {'said': 'no'}\n"
        "return {'said': 'yes'}"
    )
    assert own.ask(TASK) == {"said": "no"}


def test_an_answer_too_large_to_write_is_named(child: Make) -> None:
    own = child("return {'text': '水' * 60_000_000}", megabytes=300)
    assert own.ask(TASK)["code"] == "limits"


def test_nothing_is_connected_to(child: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        own = child(
            "said = []\n"
            "for what in (lambda: socket.create_connection(('127.0.0.1', task['port'])),\n"
            "             lambda: socket.getaddrinfo('example.org', 80)):\n"
            "    try:\n        what()\n        said.append('open')\n"
            "    except PermissionError as error:\n        said.append(str(error))\n"
            "return {'said': said}"
        )
        said = own.ask({**TASK, "port": server.getsockname()[1]})["said"]
    assert said == ["readers of documents do not connect to anything"] * 2


def test_nothing_is_written(child: Make, tmp_path: Path) -> None:
    own = child(
        "try:\n"
        "    with open(task['path'], 'w') as file:\n        file.write('x' * 10_000)\n"
        "except OSError as error:\n    return {'said': error.strerror}\n"
        "return {'said': 'written'}"
    )
    assert own.ask({**TASK, "path": str(tmp_path / "stray")})["said"] == "File too large"
    assert (tmp_path / "stray").stat().st_size == 0


def test_it_ends_when_the_parent_is_gone(child: Make) -> None:
    own = child("return {'pid': os.getpid()}")
    pid = own.ask(TASK)["pid"]
    process = own._process
    assert process
    assert process.stdin
    process.stdin.close()
    assert process.wait(30) == 0
    assert not alive(pid)


def test_one_that_ended_between_tasks_is_started_anew(child: Make) -> None:
    own = child("return {'pid': os.getpid()}")
    pid = own.ask(TASK)["pid"]
    os.kill(pid, 9)
    assert own._process
    own._process.wait()
    assert own.ask(TASK)["pid"] != pid
