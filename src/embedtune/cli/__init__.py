"""The command line: parse, call one function, print. Heavy imports happen inside commands."""

import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from types import FrameType

from embedtune.cli.console import Console
from embedtune.errors import EmbedtuneError, Interrupted, ResourceError

FULL = (28, 122, 27, 24, 23)  # no space, quota, file too large, too many open files


def run_command_line(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code. No traceback reaches the user."""
    from embedtune.cli.app import app

    console = Console(quiet=not {"--quiet", "-q"}.isdisjoint(arguments))
    stopped_by: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopped_by.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not under nohup
        signal.signal(signal.SIGINT, stop)
    _set_up_logging(console, verbose="--debug" in arguments)
    import typer

    (usage_error,) = typer.BadParameter.__bases__  # click's, which newer typer carries inside
    try:
        result = app(
            [argument for argument in arguments if argument != "--debug"] or ["--help"],
            prog_name="embedtune",
            standalone_mode=False,
        )
        if stopped_by:  # newer typer turns the exception into a result
            raise KeyboardInterrupt
        return int(result or 0)
    except typer.Exit as error:
        return error.exit_code
    except usage_error as error:
        console.error([error.format_message()])
        if error.ctx is not None:
            console.error([f"see: {error.ctx.command_path} --help"])
        return 2
    except Interrupted as error:
        console.error(error.lines)
        return _stop_code(stopped_by)
    except EmbedtuneError as error:
        console.error(error.lines)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        console.error(["stopped; run the same command again to go on"])
        return _stop_code(stopped_by)
    except (BrokenPipeError, SystemExit):  # typer turns the one into the other
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: a success all the same
        return 0
    except MemoryError:
        console.error(["out of memory; use fewer or shorter texts, or a smaller batch size"])
        return ResourceError.exit_code
    except OSError as error:
        if error.errno in FULL:
            console.error([f"{error.filename or 'a file'}: cannot write: {error.strerror}"])
            return ResourceError.exit_code
        return _bug(console)
    except Exception:  # the border: whatever is left is our own bug, and said to be one
        return _bug(console)


def _stop_code(stopped_by: Sequence[int]) -> int:
    return 128 + (signal.SIGTERM if signal.SIGTERM in stopped_by else signal.SIGINT)


def _bug(console: Console) -> int:
    handle, path = tempfile.mkstemp(prefix="embedtune-", suffix=".log")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exc(file=file)
    console.error(
        [f"this is a bug of embedtune ({sys.exc_info()[1]!r}); the details are in {path}"]
    )
    return 1


class _ToConsole(logging.Handler):
    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        self.console.say(f"  {record.getMessage()}")


def _set_up_logging(console: Console, *, verbose: bool) -> None:
    """Our own warnings go to standard error as messages; others' stay silent unless --debug."""
    if verbose:
        logging.basicConfig(level=logging.INFO, stream=sys.stderr)
        return
    ours = logging.getLogger("embedtune")
    ours.handlers = [_ToConsole(console)]
    ours.setLevel(logging.WARNING)
    ours.propagate = False
    logging.getLogger().addHandler(logging.NullHandler())
    import warnings

    warnings.simplefilter("ignore")
