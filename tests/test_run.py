"""The run directory: skipping, resuming after a kill, damage, locks, names, full disks."""

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest

from embedtune.errors import ConfigError, IntegrityError, LockedError, ResourceError
from embedtune.run import (
    Recipe,
    RunDirectory,
    build_folder,
    check_run_id,
    find_stage,
    verify,
    versions,
)

READ = Recipe("read", 1, {"tokens": 256}, {"model": "minilm@1"}, {"docs": "d1"})


class Builder:
    """Writes one file, and counts how often it was asked to."""

    def __init__(self, text="充电 charge\n", log=""):
        self.text, self.log, self.calls = text, log, 0

    def __call__(self, folder):
        self.calls += 1
        (folder / "part").mkdir(exist_ok=True)
        (folder / "part" / "out.txt").write_text(self.text, "utf-8")
        if self.log:
            (folder / "log.txt").write_text(self.log, "utf-8")
        return {"counts": {"total": 1}}


@pytest.fixture
def run(tmp_path):
    with RunDirectory(tmp_path / "run") as run:
        yield run


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def test_a_stage_is_built_once_and_then_found(run):
    build = Builder()
    first = run.stage("01-read", READ, build)
    again = run.stage("01-read", READ, build)
    assert (first.fresh, again.fresh, build.calls) == (True, False, 1)
    assert again.manifest == first.manifest
    assert again.facts == {"counts": {"total": 1}}
    assert (again.path / "part/out.txt").read_text("utf-8") == "充电 charge\n"
    assert not (run.path / ".work").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {"tokens": 128}}, {"settings.tokens": "256 → 128"}),
        ({"settings": {"tokens": 256, "overlap": 8}}, {"settings.overlap": "None → 8"}),
        ({"providers": {"model": "minilm@2"}}, {"providers.model": "minilm@1 → minilm@2"}),
        ({"inputs": {"docs": "d2"}}, {"inputs.docs": "changed"}),
        ({"version": 2}, {"version": "1 → 2"}),
    ],
)
def test_whatever_the_outcome_depends_on_makes_it_run_again(run, changed, said):
    build = Builder()
    run.stage("01-read", READ, build)
    other = replace(READ, **changed)
    assert run.planned("01-read", READ) is None
    assert run.planned("01-read", other) == said
    assert run.stage("01-read", other, build).fresh
    assert build.calls == 2


def test_a_stage_not_there_is_planned_without_differences(run):
    assert run.planned("01-read", READ) == {}


def test_equal_output_leaves_what_follows_untouched(run):
    first = run.stage("01-read", READ, Builder(log="took 3 s"))
    following = Recipe("split", 1, inputs={"read": first.digest})
    build = Builder("split\n")
    run.stage("02-split", following, build)
    redone = run.stage("01-read", replace(READ, version=2), Builder(log="took 5 s"))
    assert redone.fresh
    assert redone.digest == first.digest  # logs hold times and do not count
    run.stage("02-split", replace(following, inputs={"read": redone.digest}), build)
    assert build.calls == 1
    other = run.stage("01-read", replace(READ, version=3), Builder("other\n"))
    run.stage("02-split", replace(following, inputs={"read": other.digest}), build)
    assert build.calls == 2


def test_a_failed_stage_keeps_the_old_one_and_what_it_had_done(run):
    run.stage("01-read", READ, Builder("old\n"))
    other = replace(READ, version=2)

    def fails(folder):
        (folder / "answers.txt").write_text("paid for", "utf-8")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        run.stage("01-read", other, fails)
    old = run.find("01-read")
    verify(old)
    assert (old.path / "part/out.txt").read_text("utf-8") == "old\n"

    def goes_on(folder):
        assert (folder / "answers.txt").read_text("utf-8") == "paid for"
        return {}

    assert run.stage("01-read", other, goes_on).fresh
    assert not (run.path / ".work").exists()


def test_scratch_of_another_recipe_is_not_gone_on_with(run):
    def fails(folder):
        (folder / "answers.txt").write_text("for 256 tokens", "utf-8")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        run.stage("01-read", READ, fails)
    made = run.stage("01-read", replace(READ, settings={"tokens": 128}), Builder())
    assert set(made.manifest["outputs"]) == {"part/out.txt"}


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import embedtune.run as run

    where, at = Path(sys.argv[1]), sys.argv[2]

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def build(folder):
        (folder / "out.txt").write_text("new", "utf-8")
        if at == "building":
            die()
        return {}

    if at == "before rename":
        run._replace_folder = die
    elif at == "between renames":
        rename, done = Path.rename, []
        Path.rename = lambda self, to: die() if done else (done.append(1), rename(self, to))
    elif at == "before clean-up":
        rmtree = run.shutil.rmtree
        run.shutil.rmtree = lambda path, **_: die() if ".old" in str(path) else rmtree(path)
    with run.RunDirectory(where) as directory:
        directory.stage("01-read", run.Recipe("read", 2), build)
"""


@pytest.mark.parametrize("at", ["building", "before rename", "between renames", "before clean-up"])
def test_a_kill_at_any_moment_leaves_a_whole_stage_and_the_next_run_goes_on(tmp_path, at):
    where = tmp_path / "run"
    with RunDirectory(where) as run:
        run.stage("01-read", replace(READ, version=1), Builder("old\n"))
    assert python(KILLED, where, at).wait() == -signal.SIGKILL
    found = find_stage(where, "01-read")
    verify(found)
    assert set(found.manifest["outputs"]) in ({"part/out.txt"}, {"out.txt"})
    with RunDirectory(where) as run:
        build = Builder("new\n")
        assert run.stage("01-read", Recipe("read", 2), build).path == where / "01-read"
        assert build.calls == (at != "before clean-up")
        run.stage("01-read", Recipe("read", 3), Builder("newer\n"))
    assert sorted(path.name for path in where.iterdir()) == ["01-read", "run.lock"]


def test_a_half_built_stage_is_not_taken_for_a_whole_one(tmp_path):
    where = tmp_path / "run"
    assert python(KILLED, where, "building").wait() == -signal.SIGKILL
    assert find_stage(where, "01-read") is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_text("changed", "utf-8"), "was changed"),
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.write_bytes(b""), "was changed"),
    ],
)
def test_a_damaged_output_is_found_before_it_is_used(run, damage, said):
    made = run.stage("01-read", READ, Builder())
    damage(made.path / "part/out.txt")
    with pytest.raises(IntegrityError, match=said) as caught:
        run.stage("01-read", READ, Builder())
    assert "out.txt" in str(caught.value)
    assert "to redo the stage" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fingerprint": "x"}', "null"])
def test_a_damaged_manifest_is_named(run, text):
    made = run.stage("01-read", READ, Builder())
    (made.path / "manifest.json").write_text(text, "utf-8")
    with pytest.raises(IntegrityError, match=r"manifest\.json: the manifest is damaged"):
        run.stage("01-read", READ, Builder())


# ---- locks

HOLDS = """
    import sys, time
    from pathlib import Path
    from embedtune.run import RunDirectory

    with RunDirectory(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(path):
    child = python(HOLDS, path, stdin=subprocess.PIPE)
    assert child.stdout.readline() == "held\n"
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def test_a_live_process_keeps_others_out_and_is_named(tmp_path):
    where = tmp_path / "run"
    with held_by_another(where) as child:
        with pytest.raises(LockedError) as caught, RunDirectory(where):
            pass
        assert caught.value.exit_code == 8
        assert re.search(rf"process {child.pid} on \S+, started 20\d\d-", str(caught.value))
        assert (where / "run.lock").exists()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    where = tmp_path / "run"
    with held_by_another(where):
        pass
    with RunDirectory(where):
        holder = json.loads((where / "run.lock").read_text("utf-8"))
    assert holder["process"] == os.getpid()


def test_a_stage_can_be_read_while_another_process_works(tmp_path):
    where = tmp_path / "run"
    with RunDirectory(where) as run:
        run.stage("01-read", READ, Builder())
    with held_by_another(where):
        assert find_stage(where, "01-read").facts == {"counts": {"total": 1}}


def test_leaving_gives_the_lock_back(tmp_path):
    for _ in range(2):
        with RunDirectory(tmp_path / "run"):
            pass


# ---- names and places


@pytest.mark.parametrize("name", ["run", "a", "2024-05.v1", "_x", "A" * 64, "console", "lpt10"])
def test_names_that_any_system_can_hold_are_taken(name):
    assert check_run_id(name) == name


@pytest.mark.parametrize(
    "name",
    ["../../other", "a/b", "a\\b", "CON", "con", "nul.txt", "LPT1", "", ".", "..", ".hidden", "-x",
     "A" * 65, "a" * 300, "a b", "运行", "a\n", "a\x00", "a:b", "\u202egnp"],
)  # fmt: skip
def test_other_names_are_refused_and_shown_safely(name):
    with pytest.raises(ConfigError) as caught:
        check_run_id(name)
    assert caught.value.exit_code == 2
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 260


def test_a_file_where_the_run_directory_should_be_is_a_usage_error(tmp_path):
    (tmp_path / "run").write_text("mine", "utf-8")
    for path in (tmp_path / "run", tmp_path / "run" / "inner"):
        with pytest.raises(ConfigError, match="run"), RunDirectory(path):
            pass
    assert (tmp_path / "run").read_text("utf-8") == "mine"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_place_that_cannot_be_written_is_a_usage_error(tmp_path, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)  # root may write anywhere
    with pytest.raises(ConfigError, match="cannot write here"), RunDirectory(tmp_path / "run"):
        pass
    with pytest.raises(ConfigError, match="cannot write here"):
        build_folder(tmp_path / "out", READ, Builder())


# ---- full disks


@contextlib.contextmanager
def files_up_to(size):
    """Writes beyond ``size`` bytes fail, as on a full disk."""
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_full_disk_ends_with_6_keeps_the_old_stage_and_can_be_resumed(run):
    run.stage("01-read", READ, Builder("old\n"))
    other, build = replace(READ, version=2), Builder("x" * 50_000)
    with files_up_to(10_000), pytest.raises(ResourceError, match="free some space") as caught:
        run.stage("01-read", other, build)
    assert caught.value.exit_code == 6
    assert (run.find("01-read").path / "part/out.txt").read_text("utf-8") == "old\n"
    assert run.stage("01-read", other, build).fresh


def test_a_disk_that_is_full_at_the_manifest_leaves_no_whole_stage(run):
    with files_up_to(200), pytest.raises(ResourceError):
        run.stage("01-read", READ, Builder())
    assert run.find("01-read") is None
    assert run.stage("01-read", READ, Builder()).fresh


def test_a_disk_that_is_full_at_the_start_says_so(tmp_path):
    with files_up_to(0), pytest.raises(ResourceError), RunDirectory(tmp_path / "run"):
        pass


# ---- one folder without a run directory


def test_a_single_folder_is_built_once(tmp_path):
    build = Builder()
    first = build_folder(tmp_path / "out", READ, build)
    again = build_folder(tmp_path / "out", READ, build)
    assert (first.fresh, again.fresh, build.calls) == (True, False, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_the_user_is_not_built_over(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep", "utf-8")
    (tmp_path / "file").write_text("keep", "utf-8")
    for name in ("mine", "file"):
        with pytest.raises(ConfigError):
            build_folder(tmp_path / name, READ, Builder())
    assert (tmp_path / "mine/notes.txt").read_text("utf-8") == "keep"


def stopped(folder):
    (folder / "half.txt").write_text("half", "utf-8")
    raise RuntimeError("stop")


def test_half_done_work_is_resumed_by_the_same_command_only(tmp_path):
    other = replace(READ, settings={"tokens": 128})
    with pytest.raises(RuntimeError):
        build_folder(tmp_path / "out", READ, stopped)
    with pytest.raises(IntegrityError, match=r"settings\.tokens 256 → 128"):
        build_folder(tmp_path / "out", other, Builder())
    made = build_folder(tmp_path / "out", READ, Builder())
    assert "half.txt" in made.manifest["outputs"]


def test_half_done_work_can_be_thrown_away(tmp_path):
    with pytest.raises(RuntimeError):
        build_folder(tmp_path / "out", READ, stopped)
    other = replace(READ, settings={"tokens": 128})
    made = build_folder(tmp_path / "out", other, Builder(), fresh=True)
    assert set(made.manifest["outputs"]) == {"part/out.txt"}


def test_half_done_training_goes_on_with_the_same_libraries_and_seed_only(tmp_path):
    """What differs is listed by its whole name; a whole stage stays whole after an update."""
    begun = replace(
        READ,
        settings={"training": {"seed": 42, "lora": {"rank": 8}}},
        libraries={"torch": "2.12.0", "transformers": "5.0"},
    )
    for changed, said in (
        (replace(begun, libraries={**begun.libraries, "torch": "2.13.0"}),
         r"\(libraries\.torch 2\.12\.0 → 2\.13\.0\)"),
        (replace(begun, settings={"training": {"seed": 7, "lora": {"rank": 8}}}),
         r"\(settings\.training\.seed 42 → 7\)"),
        (replace(begun, settings={"training": {"seed": 42, "lora": "off"}}),
         r"settings\.training\.lora None → off; settings\.training\.lora\.rank 8 → None"),
        (replace(begun, inputs={"data": "other"}), r"inputs\.data changed"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError):
            build_folder(tmp_path / "out", begun, stopped)
        with pytest.raises(IntegrityError, match=said) as caught:
            build_folder(tmp_path / "out", changed, Builder())
        assert caught.value.exit_code == 7
        assert list((tmp_path / ".out.work").glob("*/half.txt"))
    build = Builder()
    build_folder(tmp_path / "out", begun, build)
    updated = replace(begun, libraries={"torch": "2.13.0"})
    assert not build_folder(tmp_path / "out", updated, build).fresh
    assert build.calls == 1


def test_in_a_run_half_done_work_of_other_libraries_is_begun_afresh(run):
    begun = replace(READ, libraries={"torch": "2.12.0"})
    with pytest.raises(RuntimeError):
        run.stage("01-read", begun, stopped)
    made = run.stage("01-read", replace(READ, libraries={"torch": "2.13.0"}), Builder())
    assert set(made.manifest["outputs"]) == {"part/out.txt"}
    assert made.manifest["recipe"]["libraries"] == {"torch": "2.13.0"}


def test_versions_are_those_installed():
    import numpy

    assert versions("numpy", "no-such-library-anywhere") == {"numpy": numpy.__version__}
