"""Whatever happens inside a command, it ends with a code and a line that a user can read."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedtune import errors
from embedtune.cli import doctor


def failing(error):
    def check():
        raise error

    return check


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.ConfigError(["one", "two"]), 2, ["one", "two"]),
        (errors.NothingUsable("nothing"), 3, ["nothing"]),
        (errors.ServiceError("away"), 5, ["away"]),
        (errors.ResourceError("full"), 6, ["full"]),
        (errors.IntegrityError("damaged"), 7, ["damaged"]),
        (errors.LockedError("locked"), 8, ["locked"]),
        (errors.RequirementError("not enough"), 9, ["not enough"]),
        (errors.Interrupted("later"), 130, ["later"]),
        (errors.NothingUsable("a\nb\x1b[2J"), 3, ["a\\nb\\x1b[2J"]),
        (MemoryError(), 6, ["out of memory"]),
        (OSError(errno.ENOSPC, "No space left on device", "disk/file"), 6, ["disk/file: cannot"]),
    ],
)
def test_each_error_has_its_code_and_a_line_a_fault(command, monkeypatch, error, code, said):
    monkeypatch.setattr(doctor, "_python", failing(error))
    result = command("doctor")
    assert (result.code, result.out) == (code, "")
    assert len(result.lines) == len(said)
    for line, text in zip(result.lines, said, strict=True):
        assert line.startswith(f"embedtune: {text}")


def test_a_bug_is_called_one_and_leaves_its_traceback_in_a_file(command, monkeypatch):
    monkeypatch.setattr(doctor, "_python", failing(RuntimeError("oops")))
    result = command("doctor")
    assert (result.code, len(result.lines)) == (1, 1)
    assert "bug" in result.err
    assert "oops" in result.err
    log = Path(re.search(r"in (\S+\.log)$", result.err.strip())[1])
    assert "Traceback" in log.read_text("utf-8")
    log.unlink()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_their_code_and_say_how_to_go_on(command, monkeypatch, number, code):
    monkeypatch.setattr(doctor, "_python", lambda: os.kill(os.getpid(), number))
    # a shell that starts the tests in the background has them ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    result = command("doctor")
    signal.signal(signal.SIGINT, before)
    assert (result.code, result.out) == (code, "")
    assert result.lines == ["embedtune: stopped; run the same command again to go on"]


def test_a_reader_that_goes_away_is_no_fault():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "embedtune", "--help"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_no_arguments_show_the_help(command):
    result = command()
    assert (result.code, result.err) == (0, "")
    assert "Usage: embedtune" in result.out
