"""The JSON file of LlamaIndex's embedding fine-tuning: queries, corpus, relevant_docs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedtune.datasets.tables import STAGE
from embedtune.errors import IntegrityError, NothingUsable
from embedtune.files import clean_text, visible, write_json
from embedtune.language import language_of
from embedtune.records import Chunk, Query, Reject, RetrievalSet

KEYS = ("queries", "corpus", "relevant_docs")
EXAMPLES = 3


def is_llama(found: Mapping[str, Any]) -> bool:
    return all(isinstance(found.get(key), dict) for key in KEYS)


@dataclass(frozen=True, slots=True)
class LlamaReading:
    data: RetrievalSet
    rejects: tuple[Reject, ...]
    accepted: int  # passages, queries and judgements


def read_llama(
    name: str, parts: Mapping[str, Sequence[tuple[Path, Mapping[str, Any]]]]
) -> LlamaReading:
    """The files of each split as one retrieval set; a passage of several files is one.

    Ids are kept; where files give one id to different texts, the split is put before it.

    Raises:
        IntegrityError: Judged ids that the file does not have.
        NothingUsable: No passages, queries or judgements are left.
    """
    rejects: list[Reject] = []
    chunks: dict[str, Chunk] = {}
    queries: dict[str, Query] = {}
    qrels: dict[str, dict[str, dict[str, int]]] = {}
    for split, files in parts.items():
        part = qrels.setdefault(split, {})
        for path, found in files:
            corpus = _texts(path, "corpus", found["corpus"], rejects)
            asked = _texts(path, "queries", found["queries"], rejects)
            own = {key: _keep(chunks, _chunk, split, key, text) for key, text in corpus.items()}
            ours = {key: _keep(queries, _query, split, key, text) for key, text in asked.items()}
            for query, relevant in _judgements(path, found, asked, corpus, rejects).items():
                part.setdefault(ours[query], {}).update((own[chunk], 1) for chunk in relevant)
    if not chunks or not queries or not any(qrels.values()):
        what = "passages" if not chunks else "queries" if not queries else "judgements"
        first = f"; first: {rejects[0].file}: {rejects[0].message}" if rejects else ""
        raise NothingUsable(f"{name}: no usable {what}{first}")
    judged = sum(len(grades) for part in qrels.values() for grades in part.values())
    data = RetrievalSet(name, tuple(chunks.values()), tuple(queries.values()), qrels, True)
    return LlamaReading(data, tuple(rejects), len(chunks) + len(queries) + judged)


def write_llama(data: RetrievalSet, split: str, path: Path) -> None:
    """One split, with the whole corpus to be searched."""
    relevant = {
        query: [chunk for chunk, grade in grades.items() if grade > 0]
        for query, grades in data.qrels[split].items()
    }
    write_json(
        path,
        {
            "queries": {query.id: query.text for query in data.queries if query.id in relevant},
            "corpus": {chunk.id: chunk.embedded for chunk in data.chunks},
            "relevant_docs": relevant,
            "mode": "text",
        },
    )


def _texts(path: Path, key: str, found: Mapping[str, Any], rejects: list[Reject]) -> dict[str, str]:
    texts = {}
    for identity, text in found.items():
        if isinstance(text, str) and any(s.isprintable() and not s.isspace() for s in text):
            texts[identity] = clean_text(text)
        else:
            what = "is empty" if isinstance(text, str) else f"is {visible(repr(text), 40)}"
            rejects.append(Reject(STAGE, "text", f"{key}.{visible(identity)} {what}; text is due",
                                  file=str(path), field=key, item=identity))  # fmt: skip
    return texts


def _judgements(
    path: Path,
    found: Mapping[str, Any],
    queries: Mapping[str, str],
    corpus: Mapping[str, str],
    rejects: list[Reject],
) -> dict[str, list[str]]:
    judged: dict[str, list[str]] = {}
    strangers = []
    for query, relevant in found["relevant_docs"].items():
        if not isinstance(relevant, list) or not all(isinstance(id, str) for id in relevant):
            message = f"relevant_docs.{visible(query)} is no list of ids, which are text"
            rejects.append(Reject(STAGE, "judgement", message, file=str(path),
                                  field="relevant_docs", item=query))  # fmt: skip
            continue
        strangers += [query] if query not in found["queries"] else []
        strangers += [chunk for chunk in relevant if chunk not in found["corpus"]]
        kept = [chunk for chunk in dict.fromkeys(relevant) if chunk in corpus]
        if query in queries and kept:
            judged[query] = kept
    if strangers:
        raise IntegrityError(
            f"{path}: {len(strangers)} ids in relevant_docs are in neither queries nor corpus, "
            f"e.g. {', '.join(map(visible, strangers[:EXAMPLES]))}; they must be the same text"
        )
    return judged


def _keep(records: dict[str, Any], make: Any, split: str, identity: str, text: str) -> str:
    """The id under which a record is kept: its own, unless another text has it."""
    known = records.get(identity)
    if known is not None and known.text != text:
        identity = f"{split}/{identity}"
    records.setdefault(identity, make(identity, text))
    return identity


def _chunk(identity: str, text: str) -> Chunk:
    return Chunk(identity, identity, 0, len(text), "", text, language=language_of(text))


def _query(identity: str, text: str) -> Query:
    return Query(identity, text, language=language_of(text), origin="beir")
