"""The store of an index in a folder: vectors in memory-mapped files, searched exactly.

    index.json               what made the vectors, and which of the files below count; written last
    vectors-000007.npy       (n, dimension) float32, as the model gives them
    passages-000007.jsonl    the passages, in the same order
    rows-000007.json         their ids, digests and places in that file
    bm25-000008.npz          made of the passages, so that no search has to make it again
    approximate-000009.ivf   where FAISS searches instead

Files are never changed, only added and left out. `index.json` is replaced in one step, so that a
kill leaves the old index or the new one; who has the old one open goes on with it. Files of like
size are joined as they become many, as in a log-structured merge tree (O'Neil et al. 1996).
"""

import json
import logging
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from embedtune.embed import Matrix
from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import (
    disk_errors,
    read_json,
    sha256_of,
    sync_folder,
    visible,
    write_json,
)
from embedtune.records import Chunk, as_row, chunk_from_row
from embedtune.retrieve import Hit
from embedtune.retrieve.dense import check_vectors, pair_scores
from embedtune.retrieve.disk_part import Part, check_file, files_of
from embedtune.retrieve.order import tie_breaker
from embedtune.retrieve.stores import IndexInfo, digest_of
from embedtune.run import take_lock

logger = logging.getLogger(__name__)

FORMAT = 1
MANIFEST = "index.json"
LOCK = "index.lock"
ALIKE = 16  # files of one size that are joined to one of the next
DEAD = 0.25  # share of removed rows above which all files are written anew
SCORES = 1 << 24  # that are held at a time, as float32
COPIED = 8192  # rows
APPROXIMATE = "approximate"


@dataclass(slots=True)
class _Manifest:
    """`index.json`. ``parts``: name -> digests of the three files, and the rows that count no
    more. ``derived``: what was made of the whole -> its file, digest, and figures."""

    info: IndexInfo
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    derived: dict[str, dict[str, Any]] = field(default_factory=dict)
    next: int = 1  # of the numbers in file names; none is given twice

    def as_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}


class DiskStore:
    """Passages with vectors in the files of a folder; see above.

    Any number of processes and threads may read; one writes, and others that want to are told so
    (LockedError). A reader sees the index as it was when it first asked.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder}: is a file; expected the folder of an index")
        self.folder = folder
        self.name = f"the folder {visible(str(folder), 200)}"
        self._lock: IO[str] | None = None  # held from the first write to `close`
        self._manifest: _Manifest | None = None
        self._parts: dict[str, Part] = {}
        self._places: dict[str, tuple[Part, int]] = {}
        self._faiss: tuple[Path, Any] | None = None  # what `approximate.load` gives
        self._loading = threading.RLock()

    # ---- reading

    def info(self) -> IndexInfo | None:
        self._load()
        return self._manifest and self._manifest.info

    def digests(self) -> dict[str, str]:
        self._load()
        return {id: part.digests[row] for id, (part, row) in self._places.items()}

    def chunks(self, ids: Sequence[str]) -> list[Chunk]:
        self._load()
        places = [self._places[id] for id in ids]
        return [chunk_from_row(json.loads(part.line(row))) for part, row in places]

    def vectors(self, ids: Sequence[str]) -> Matrix:
        info = self._made()
        found = np.empty((len(ids), info.dimension), np.float32)
        for target, id in enumerate(ids):
            part, row = self._places[id]
            found[target] = part.vectors[row]
        return found

    def all_chunks(self) -> Iterator[Chunk]:
        for id in self.ids():
            yield from self.chunks([id])

    def ids(self) -> list[str]:
        """Of all passages, in their order."""
        self._load()
        return sorted(self._places)

    def nearest(self, queries: Matrix, k: int) -> list[list[Hit]]:
        info = self._made()
        queries = np.asarray(queries, np.float32)
        if queries.shape[1] != info.dimension:
            raise IntegrityError(
                f"{self.name}: a query has {queries.shape[1]} numbers, its vectors have "
                f"{info.dimension}; they are not of one model"
            )
        k = min(k, len(self._places))
        if not k:
            return [[] for _ in queries]
        if (rows := self._approximately(queries, k)) is not None:
            return [self._best(*one, k) for one in zip(queries, rows, strict=True)]
        block = max(1, SCORES // max(1, sum(map(len, self._parts.values()))))
        return [
            hits
            for first in range(0, len(queries), block)
            for hits in self._exactly(queries[first : first + block], k)
        ]

    def _approximately(self, queries: Matrix, k: int) -> list[npt.NDArray[np.int64]] | None:
        """Rows that may be the best, where FAISS is to search and is here."""
        path = self.derived(APPROXIMATE)
        if path is None:
            return None
        from embedtune.retrieve import approximate

        with self._loading:
            if self._faiss is None or self._faiss[0] != path:
                self._faiss = path, approximate.load(path)
            index = self._faiss[1]
        if index is None:
            return None
        probes = self.figures(APPROXIMATE)["probes"]
        return approximate.candidates(index, queries, k, probes, self._made().similarity)

    def _exactly(self, queries: Matrix, k: int) -> Iterator[list[Hit]]:
        parts = list(self._parts.values())
        scores = np.concatenate([part.scores(queries) for part in parts], axis=1)
        floors = np.partition(scores, -k, axis=1)[:, -k]
        for query, own, floor in zip(queries, scores, floors, strict=True):
            yield self._best(query, np.flatnonzero(own >= floor - self._slack(query)), k)

    def _slack(self, query: Matrix) -> float:
        """What float32 products may be off by, with what rounding of the exact scores decides."""
        length = float(np.linalg.norm(query))
        similarity = self._made().similarity
        if similarity == "cosine":
            return 1e-5 * length
        largest = max(part.largest for part in self._parts.values())
        if similarity == "dot":
            return 1e-5 * length * largest + 1e-8
        return 2e-5 * (length + largest) ** 2 + 1e-8

    def _best(self, query: Matrix, rows: npt.NDArray[np.int64], k: int) -> list[Hit]:
        """The ``k`` best of some rows, numbered through all parts, scored exactly."""
        hits: list[Hit] = []
        first = 0
        for part in self._parts.values():
            own = rows[(rows >= first) & (rows < first + len(part))] - first
            first += len(part)
            exact = pair_scores(
                query[None], part.vectors, np.zeros(len(own), np.int64), own,
                self._made().similarity,
            )  # fmt: skip
            hits += [
                Hit(part.ids[row], float(score))
                for row, score in zip(own.tolist(), exact, strict=True)
                if row not in part.dead
            ]
        return sorted(hits, key=lambda hit: (-hit.score, tie_breaker(hit.chunk)))[:k]

    def derived(self, name: str) -> Path | None:
        """The file that was made of just these passages and vectors, or None."""
        self._load()
        entry = self._manifest.derived.get(name) if self._manifest else None
        return self.folder / entry["file"] if entry else None

    def figures(self, name: str) -> Mapping[str, Any]:
        """What was measured when that file was made."""
        return self._manifest.derived[name]["figures"] if self._manifest else {}

    def _made(self) -> IndexInfo:
        info = self.info()
        if info is None:
            raise ConfigError(f"{self.name}: holds no index")
        return info

    def _load(self) -> None:
        """Read the index once. Another process may be replacing it just then: look again."""
        with self._loading:
            for _ in range(100):
                if self._manifest is not None:
                    return
                manifest = self._read_manifest()
                if manifest is None:
                    return
                try:
                    self._open_parts(manifest)
                except FileNotFoundError as error:
                    if (again := self._read_manifest()) is None or again == manifest:
                        raise IntegrityError(
                            f"{error.filename}: is missing; restore it, or index again with --fresh"
                        ) from error

    def _open_parts(self, manifest: _Manifest) -> None:
        parts = {name: self._part(name, entry, manifest) for name, entry in manifest.parts.items()}
        for entry in manifest.derived.values():
            check_file(self.folder / entry["file"], entry["sha256"])
        self._places = {
            part.ids[row]: (part, row) for part in parts.values() for row in part.alive().tolist()
        }
        self._parts, self._manifest = parts, manifest

    def _part(self, name: str, entry: Mapping[str, Any], manifest: _Manifest) -> Part:
        try:
            return Part(self.folder, name, entry, manifest.info)
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{self.folder / files_of(name)[0]}: damaged ({error}); index again with --fresh"
            ) from error

    def _read_manifest(self) -> _Manifest | None:
        path = self.folder / MANIFEST
        if not path.is_file():
            return None
        try:
            row = read_json(path)
            if row.pop("format") != FORMAT:
                raise ValueError("another format; it was made by another version")
            return _Manifest(**{**row, "info": IndexInfo(**row["info"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(
                f"{path}: damaged ({error}); restore it, or index again with --fresh"
            ) from error

    # ---- writing

    def create(self, info: IndexInfo) -> None:
        if self._lock is None:
            self._take_lock()
        try:
            old = self._read_manifest()
        except IntegrityError:  # what is thrown away may be damaged
            old = None
        taken = [int(path.stem[-6:]) for path in self._leftovers()]
        self._parts, self._places = {}, {}
        self._manifest = _Manifest(
            info, next=max([old.next if old else 1, *(n + 1 for n in taken)])
        )
        self._commit()

    def describe(self, info: IndexInfo) -> None:
        """Change what is known of the model, which stays the same: where it lies, how to search."""
        manifest = self._writable()
        manifest.info = info
        self._commit()

    def put(self, chunks: Sequence[Chunk], vectors: Matrix) -> None:
        manifest = self._writable()
        if not chunks:
            return
        texts = [chunk.embedded for chunk in chunks]
        check_vectors(vectors, texts, self.name, allow_collapsed=True)
        if vectors.shape[1] != manifest.info.dimension:
            raise IntegrityError(
                f"{self.name}: new vectors have {vectors.shape[1]} numbers, those in it "
                f"{manifest.info.dimension}; they are not of one model"
            )
        ids = [chunk.id for chunk in chunks]
        if len(set(ids)) != len(ids):
            raise ValueError("two passages of one id in one call")
        with self._change():
            self._bury(id for id in ids if id in self._places)
            lines = (json.dumps(as_row(chunk), ensure_ascii=False) + "\n" for chunk in chunks)
            self._add(ids, list(map(digest_of, chunks)), map(str.encode, lines), iter([vectors]))

    def remove(self, ids: Sequence[str]) -> None:
        self._writable()
        gone = [id for id in ids if id in self._places]
        if gone:
            with self._change():
                self._bury(gone)
                for id in gone:
                    del self._places[id]

    def keep(
        self, name: str, suffix: str, write: Callable[[Path], None], figures: Mapping[str, Any] = {}
    ) -> None:
        """Keep a file that was made of all passages or vectors, until one of them changes.

        Args:
            write: Writes it; the path is not in use.
        """
        manifest = self._writable()
        file = f"{name}-{self._number()}{suffix}"
        path = self.folder / file
        with disk_errors(path):
            write(path)
            _sync(path)
        manifest.derived[name] = {
            "file": file, "sha256": sha256_of(path), "figures": dict(figures),
        }  # fmt: skip
        self._commit()

    def build_approximate(self) -> float:
        """Let FAISS search from now on, until the next change; its recall@10 beside exact search.

        Raises:
            ConfigError: FAISS is not installed, or there are too few vectors.
        """
        from embedtune.retrieve import approximate

        info = self._made()
        self._writable()
        if len(self._parts) > 1 or any(part.dead for part in self._parts.values()):
            with self._change():
                self._merge(list(self._parts))
        vectors = next(iter(self._parts.values())).vectors if self._parts else np.zeros((0, 1))
        made = approximate.build(vectors, info.similarity)
        self.keep(APPROXIMATE, ".ivf", made.write, {"probes": made.probes, "recall": made.recall})
        return made.recall

    def drop(self) -> None:
        """Files that are not its own stay, and then the folder does."""
        if (info := self.info()) is None:
            return
        self.create(info)  # removes its files, and holds the lock
        for name in (MANIFEST, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        self.close()
        with suppress(OSError):
            self.folder.rmdir()

    def close(self) -> None:
        """Let others write. Reading goes on."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _writable(self) -> _Manifest:
        if self._lock is None:
            self._take_lock()
            self._manifest = None  # it may have changed while the lock was another's
        self._made()
        assert self._manifest is not None
        return self._manifest

    def _take_lock(self) -> None:
        try:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                others = [path for path in self.folder.iterdir() if path.name != LOCK]
                if others and not any((self.folder / own).exists() for own in (LOCK, MANIFEST)):
                    raise ConfigError(
                        f"{self.folder}: holds other files and no index; choose an empty or new "
                        "folder"
                    )
                self._lock = take_lock(self.folder / LOCK)
        except OSError as error:
            raise ConfigError(f"{self.folder}: cannot write here: {error.strerror}") from error

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Passages are added or removed, and files made of all of them count no more. After an
        error the index is that of before."""
        try:
            yield
            self._writable().derived.clear()
            self._join()
            self._commit()
        except BaseException:
            self._manifest = None
            raise

    def _bury(self, ids: Iterable[str]) -> None:
        for id in ids:
            part, row = self._places[id]
            part.dead.add(row)

    def _number(self) -> str:
        assert self._manifest is not None
        self._manifest.next += 1
        return f"{self._manifest.next - 1:06d}"

    def _add(
        self, ids: list[str], digests: list[str], lines: Iterator[bytes], blocks: Iterator[Matrix]
    ) -> None:
        """Write one more part; it counts after `_commit`."""
        manifest, name = self._writable(), self._number()
        vectors, passages, rows = (self.folder / file for file in files_of(name))
        offsets = [0]
        with disk_errors(self.folder):
            with passages.open("wb") as file:
                for line in lines:
                    offsets.append(offsets[-1] + file.write(line))
            with vectors.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, {
                    "descr": "<f4", "fortran_order": False,
                    "shape": (len(ids), manifest.info.dimension),
                })  # fmt: skip
                for block in blocks:
                    file.write(np.ascontiguousarray(block, "<f4").data)
            index = {"ids": ids, "digests": digests, "offsets": offsets}
            rows.write_text(json.dumps(index), "utf-8")
            for path in (vectors, passages, rows):
                _sync(path)
        entry = {"sha256": [sha256_of(path) for path in (vectors, passages, rows)], "dead": []}
        self._parts[name] = part = Part(self.folder, name, entry, manifest.info)
        manifest.parts[name] = entry
        self._places.update((id, (part, row)) for row, id in enumerate(ids))

    def _join(self) -> None:
        """Keep the files few, and free of what was removed."""
        rows = sum(map(len, self._parts.values()))
        if rows and sum(len(part.dead) for part in self._parts.values()) > DEAD * rows:
            self._merge(list(self._parts))
            return
        while True:
            sizes: dict[int, list[str]] = {}
            for name, part in self._parts.items():
                sizes.setdefault(int(math.log(len(part), ALIKE)), []).append(name)
            crowded = [names for names in sizes.values() if len(names) >= ALIKE]
            if not crowded:
                return
            self._merge(crowded[0])

    def _merge(self, names: Sequence[str]) -> None:
        kept = [(self._parts[name], self._parts[name].alive()) for name in names]
        for name in names:
            del self._parts[name], self._writable().parts[name]
        if not any(len(rows) for _, rows in kept):
            return
        self._add(
            [part.ids[row] for part, rows in kept for row in rows.tolist()],
            [part.digests[row] for part, rows in kept for row in rows.tolist()],
            (part.line(row) for part, rows in kept for row in rows.tolist()),
            (part.vectors[rows[first : first + COPIED]]
             for part, rows in kept for first in range(0, len(rows), COPIED)),
        )  # fmt: skip

    def _commit(self) -> None:
        """Make what was written count, and remove what counts no more."""
        manifest = self._manifest
        assert manifest is not None
        for name, part in self._parts.items():
            manifest.parts[name] = {**manifest.parts[name], "dead": sorted(part.dead)}
        sync_folder(self.folder)
        write_json(self.folder / MANIFEST, manifest.as_json())
        sync_folder(self.folder)
        counted = {file for name in manifest.parts for file in files_of(name)}
        counted |= {entry["file"] for entry in manifest.derived.values()}
        for path in self._leftovers():
            if path.name not in counted:
                with suppress(OSError):  # Windows keeps files that are read; the next time then
                    path.unlink()

    def _leftovers(self) -> Iterator[Path]:
        for pattern in ("vectors-*.npy", "passages-*.jsonl", "rows-*.json", "bm25-*.npz",
                        f"{APPROXIMATE}-*.ivf"):  # fmt: skip
            yield from self.folder.glob(pattern)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
