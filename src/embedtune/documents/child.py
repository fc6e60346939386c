"""A child process under limits of time and memory that answers JSON lines.

What reads foreign bytes can be stopped only from outside when it hangs or swells. ``Child`` is the
side of the user's process, ``serve`` the side of the child. While it works on a task, the child may
ask for something itself; its time stands still until it has the answer.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]  # what JSON knows
Ask = Callable[[Row], Row]


class Stopped(Exception):
    """The child was ended. ``late``: by its time limit; else it broke down by itself."""

    def __init__(self, *, late: bool) -> None:
        super().__init__()
        self.late = late


class Child:
    """Keeps one process alive over many tasks, starts another when it had to be ended."""

    def __init__(self, module: str, *, megabytes: int, seconds: int) -> None:
        self.module = module
        self.megabytes = megabytes
        self.seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, task: Row, answer: Ask | None = None) -> Row:
        """The child's answer to a task; what it asks for meanwhile is answered by ``answer``.

        Raises:
            Stopped: It took more than ``seconds`` at a stretch, or broke down.
        """
        process = self._started()
        message = task
        while True:
            line, late = self._exchange(process, message)
            if late or not line.endswith(b"\n"):
                self.end()
                raise Stopped(late=late)
            said = json.loads(line)
            if answer is None or "ask" not in said:
                return said
            message = answer(said["ask"])

    def _exchange(
        self, process: "subprocess.Popen[bytes]", message: Row
    ) -> tuple[bytes, bool]:  # line, whether time ran out
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the child was started without pipes")
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(self.seconds, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
            process.stdin.flush()
            return process.stdout.readline(), late.is_set()
        except BrokenPipeError:
            return b"", late.is_set()
        finally:
            timer.cancel()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            package_root = str(Path(__file__).parents[2])
            path = os.pathsep.join(filter(None, (package_root, os.environ.get("PYTHONPATH"))))
            self._process = subprocess.Popen(
                # -P: a file of the user's folder must not stand in for a library
                [sys.executable, "-P", "-m", self.module, str(self.megabytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                process_group=0 if os.name == "posix" else None,
            )
        return self._process

    def end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        for pipe in (process.stdin, process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process and what it started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()


# ---- in the child


def serve(handle: Callable[[Row, Ask], Row]) -> None:
    """Answer tasks until the parent closes the pipe. Nothing is written, nothing connected to."""
    _limit(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get between the answers
    tasks = sys.stdin.buffer

    def say(message: Row) -> None:
        try:
            line = json.dumps(message).encode("ascii")
        except MemoryError:
            line = b'{"code": "limits", "message": "needs more memory than allowed"}'
        answers.write(line + b"\n")
        answers.flush()

    while line := tasks.readline():
        task = json.loads(line)
        seconds = task["seconds"] + 5  # ends even an orphan that hangs

        def ask(question: Row, seconds: int = seconds) -> Row:
            _alarm(0)
            say({"ask": question})
            reply = tasks.readline()
            if not reply:
                sys.exit()  # the parent is gone
            _alarm(seconds)
            return json.loads(reply)

        _alarm(seconds)
        answer = handle(task, ask)
        _alarm(0)
        say(answer)
        del answer, line, task


def _alarm(seconds: int) -> None:
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def _limit(megabytes: int) -> None:
    """No Ctrl-C, no connections; no files written and no more memory, where the system can."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    sys.addaudithook(_refuse_connections)
    try:
        import resource
    except ImportError:  # Windows
        return
    for limit, most in (
        (resource.RLIMIT_AS, megabytes << 20),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(limit, (most, most))


def _refuse_connections(event: str, _: object) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError("readers of documents do not connect to anything")
