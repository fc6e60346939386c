"""The run directory: one folder a stage, manifests written last, one live lock.

    run/
      config.yaml            the settings as resolved
      run.lock               held while a process works here
      01-documents/          output files of a stage …
        manifest.json        … and what they were made from; written last
      .work/documents-1f3a/  a stage being built; renamed when whole

A stage is whole when its manifest is there. Its fingerprint is made of the stage's version,
its settings, the providers used and the digests of its inputs; the same fingerprint is not
built again. Because inputs count by the digest of what they hold, a stage that was redone
with the same outcome does not make the following ones run.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from embedtune.errors import ConfigError, IntegrityError, LockedError, NothingUsable
from embedtune.files import disk_errors, read_json, sha256_of, sync_folder, visible, write_json

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
RUN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{n}{i}" for n in ("COM", "LPT") for i in range(1, 10))}


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that a stage's output depends on."""

    stage: str
    version: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    providers: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)  # name -> digest
    libraries: Mapping[str, str] = field(default_factory=dict)  # name -> version

    @property
    def fingerprint(self) -> str:
        """Of all but the libraries: an update does not make a whole stage stale. Half-done work,
        though, goes on with the same ones only."""
        return _hash({"stage": self.stage, "version": self.version, "settings": self.settings,
                      "providers": self.providers, "inputs": self.inputs})  # fmt: skip

    @property
    def scratch(self) -> str:
        """Name of the folder for half-done work."""
        own = _hash([self.fingerprint, self.libraries]) if self.libraries else self.fingerprint
        return f"{self.stage}-{own[:12]}"


@dataclass(frozen=True, slots=True)
class StageFolder:
    """A whole stage on disk."""

    path: Path
    manifest: Mapping[str, Any]
    fresh: bool  # built by this call, not found

    @property
    def digest(self) -> str:
        return self.manifest["digest"]

    @property
    def facts(self) -> Mapping[str, Any]:
        """Counts, notes and the like, as the stage's builder returned them."""
        return self.manifest["facts"]


def versions(*names: str) -> dict[str, str]:
    """Of installed libraries, by name."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def check_run_id(run_id: str) -> str:
    """``run_id`` if it can be a folder's name everywhere.

    Raises:
        ConfigError: It holds other than letters, digits, ``.``, ``_``, ``-``; is too long; …
    """
    if not RUN_ID.fullmatch(run_id) or run_id.upper().split(".")[0] in RESERVED:
        raise ConfigError(
            f"run id {visible(run_id)!r}: allowed are 1 to 64 letters, digits, '.', '_' and '-', "
            "not beginning with '.' or '-', and no reserved device name"
        )
    return run_id


class RunDirectory:
    """An open run directory, locked for this process. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None

    def __enter__(self) -> "RunDirectory":
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"{self.path}: the run directory is a file; choose another")
        try:
            lock = self.path / "run.lock"
            if self.path.is_dir() and not lock.exists() and any(self.path.iterdir()):
                raise ConfigError(
                    f"{self.path}: holds other files and no run; choose an empty or new folder"
                )
            with disk_errors(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = take_lock(lock)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot write here: {error.strerror}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def find(self, name: str) -> StageFolder | None:
        """The whole stage of that folder name, or None."""
        return find_stage(self.path, name)

    def planned(self, name: str, recipe: Recipe) -> dict[str, str] | None:
        """Why the stage would be built: the differing parts, old → new. None: it is up to date."""
        found = self.find(name)
        if found is None:
            return {}
        if found.manifest["fingerprint"] == recipe.fingerprint:
            return None
        return _differences(found.manifest["recipe"], _recipe_row(recipe))

    def stage(
        self, name: str, recipe: Recipe, build: Callable[[Path], Mapping[str, Any]]
    ) -> StageFolder:
        """The stage's folder; built only if there is none with this fingerprint.

        ``build`` gets a scratch folder that survives a kill (so that a stage may go on from
        what it left there), fills it, and returns JSON-ready facts for the manifest.

        Raises:
            IntegrityError: A file of a finished stage is not what its manifest says.
        """
        return _build(self.path / name, self.path / ".work", recipe, build)


def build_folder(
    out: Path,
    recipe: Recipe,
    build: Callable[[Path], Mapping[str, Any]],
    *,
    fresh: bool = False,
) -> StageFolder:
    """One stage without a run directory, for commands that leave a single folder ``out``.

    Like ``RunDirectory.stage``; half-done work waits beside ``out`` in a hidden folder.

    Args:
        fresh: Throw half-done work of another recipe away instead of refusing to.

    Raises:
        ConfigError: ``out`` is a file, or a folder with other things in it. This and
            ``NothingUsable`` of ``build`` leave nothing behind, since a repeat would fail alike.
        IntegrityError: There is half-done work of another recipe.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file; choose another folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MANIFEST).exists():
        raise ConfigError(f"{out}: holds other files; choose an empty or new folder")
    work = out.with_name(f".{out.name}.work")
    try:
        with disk_errors(work):
            work.mkdir(parents=True, exist_ok=True)
            lock = take_lock(work / ".lock")
    except OSError as error:
        raise ConfigError(f"{out}: cannot write here: {error.strerror}") from error
    with lock:
        begun = work / "recipe.json"
        if begun.exists() and not fresh:
            changed = _differences(read_json(begun), _recipe_row(recipe))
            if changed and any(work.glob(f"{recipe.stage}-*")):
                raise IntegrityError(
                    f"{out}: half-done work of another recipe waits to be resumed ("
                    + "; ".join(f"{key} {value}" for key, value in changed.items())
                    + "); repeat that command, or start afresh with --fresh"
                )
        write_json(begun, _recipe_row(recipe))
        try:
            done = _build(out, work, recipe, build)
        except (ConfigError, NothingUsable):
            shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)
    return done


def _build(
    final: Path, work: Path, recipe: Recipe, build: Callable[[Path], Mapping[str, Any]]
) -> StageFolder:
    found = find_stage(final.parent, final.name)
    if found is not None and found.manifest["fingerprint"] == recipe.fingerprint:
        verify(found)
        log.info("%s: up to date", final.name)
        return found
    scratch = work / recipe.scratch
    for other in work.glob(f"{recipe.stage}-*"):
        if other != scratch:
            shutil.rmtree(other)
    begin = time.monotonic()
    with disk_errors(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        (scratch / MANIFEST).unlink(missing_ok=True)  # killed before the rename: redo the rest
        facts = build(scratch)
        outputs = {
            str(path.relative_to(scratch).as_posix()): sha256_of(path)
            for path in sorted(scratch.rglob("*"))
            if path.is_file()
        }
        manifest = {
            "stage": recipe.stage,
            "fingerprint": recipe.fingerprint,
            "recipe": _recipe_row(recipe),
            "outputs": outputs,
            "digest": _hash({k: v for k, v in outputs.items() if not _is_log(k)}),
            "facts": dict(facts),
            "seconds": round(time.monotonic() - begin, 2),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(scratch / MANIFEST, manifest)
        _replace_folder(scratch, final)
    with contextlib.suppress(OSError):
        work.rmdir()
    return StageFolder(final, manifest, fresh=True)


def find_stage(run: Path, name: str) -> StageFolder | None:
    """The whole stage ``name`` of the run directory ``run``, or None. Needs no lock."""
    aside = run / f".old-{name}"
    if aside.exists() and not (run / name).exists():  # killed between the two renames
        with contextlib.suppress(OSError):
            aside.rename(run / name)
    path = run / name / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = read_json(path)
        manifest["fingerprint"], manifest["digest"], manifest["outputs"], manifest["facts"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{path}: the manifest is damaged ({error}); remove the folder {path.parent} to redo it"
        ) from error
    return StageFolder(path.parent, manifest, fresh=False)


def verify(stage: StageFolder) -> None:
    """Check every file of a stage against its manifest.

    Raises:
        IntegrityError: A file is missing or differs.
    """
    for name, digest in stage.manifest["outputs"].items():
        path = stage.path / name
        if not path.is_file():
            problem = "is missing"
        elif sha256_of(path) != digest:
            problem = "was changed after the stage was finished (its hash differs)"
        else:
            continue
        raise IntegrityError(
            f"{path} {problem}; restore it, or remove the folder {stage.path} to redo the stage"
        )


def _is_log(name: str) -> bool:
    """Logs hold times, which differ between equal runs; they do not count as output."""
    return name.rsplit("/", 1)[-1].startswith("log")


def _replace_folder(scratch: Path, final: Path) -> None:
    """Rename ``scratch`` to ``final``; an older ``final`` stays complete until that moment."""
    sync_folder(scratch)
    aside = final.with_name(f".old-{final.name}")
    if aside.exists():
        shutil.rmtree(aside)
    if final.exists():
        final.rename(aside)
    scratch.rename(final)
    sync_folder(final.parent)
    if aside.exists():
        shutil.rmtree(aside)


def take_lock(path: Path) -> IO[str]:
    """Hold ``path`` for the life of this process; the system frees it however we end."""
    lock = path.open("a+", encoding="utf-8")
    try:
        if os.name == "nt":
            import msvcrt

            lock.seek(1 << 20)  # beyond the text, which others want to read
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        try:
            holder = json.loads(lock.read())
            who = f"process {holder['process']} on {holder['host']}, started {holder['started']}"
        except (ValueError, KeyError, TypeError):
            who = "another process"
        lock.close()
        raise LockedError(f"{path.parent}: in use by {who}; wait for it or stop it") from error
    lock.seek(0)
    lock.truncate()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    json.dump({"process": os.getpid(), "host": socket.gethostname(), "started": started}, lock)
    lock.flush()
    return lock


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _recipe_row(recipe: Recipe) -> dict[str, Any]:
    # through JSON, so that a recipe compares equal to one read back from a manifest
    row = {"version": recipe.version, "settings": recipe.settings, "providers": recipe.providers,
           "inputs": recipe.inputs, "libraries": recipe.libraries}  # fmt: skip
    return json.loads(json.dumps(row, default=str))


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """What changed between two recipes, one line each: ``settings.tokens`` -> ``256 → 128``."""
    changed: dict[str, str] = {}
    if old.get("version") != new["version"]:
        changed["version"] = f"{old.get('version')} → {new['version']}"
    for part in ("settings", "providers", "inputs", "libraries"):
        before, after = _flat(old.get(part, {})), _flat(new[part])
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                shown = "changed" if part == "inputs" else (
                    f"{visible(before.get(key), 40)} → {visible(after.get(key), 40)}")  # fmt: skip
                changed[f"{part}.{key}"] = shown
    return changed


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings inside settings by their whole names: ``training.seed``."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
