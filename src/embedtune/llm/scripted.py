"""A chat model that answers from a file or a function: for the demo, for tests, for free.

A recorded answer is one line of JSONL: ``document`` (file name), ``section``, ``quote`` (the
passage's words that answer), ``question``, ``style``, ``language``. It is found by its quote, so
that it outlives every re-chunking.
"""

import hashlib
import inspect
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path, PurePath
from typing import Any

from embedtune.errors import ConfigError
from embedtune.files import read_jsonl
from embedtune.llm import ChatAnswer, ChatRequest
from embedtune.quotes import skeleton
from embedtune.records import Reject

Script = Callable[[ChatRequest], str | ChatAnswer | Awaitable[str | ChatAnswer]]

SHORT = 20  # letters and digits; a shorter quote counts only as a whole


class ScriptedChat:
    """Answers with every recorded question whose quote stands in the passage, or as told.

    ``request.facts`` carry the passage (``text``) and the file it is from (``source``). A quote
    that a chunk border cuts belongs to the chunks that hold its first or its last half; the
    answer gives it whole, and the caller finds it in the document around the chunk.

    Args:
        answers: A JSONL file of recorded answers, or a function from request to answer.
        name: Part of the request key; by default made from the file's content.

    Raises:
        ConfigError: The file is missing or holds no usable line.
    """

    def __init__(self, answers: Path | str | Script | None, name: str = "") -> None:
        if answers is None:
            raise ConfigError("llm.answers: provider scripted needs a JSONL file of answers")
        self._script: Script
        if callable(answers):
            self._script = answers
            self.name = name or "scripted:function"
        else:
            path = Path(answers)
            rows, digest = _read(path)
            self._script = _Recording(rows).answer
            self.name = name or f"scripted:{path.name}@{digest}"

    async def ask(self, request: ChatRequest) -> ChatAnswer:
        answer = self._script(request)
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, ChatAnswer):
            return answer
        return ChatAnswer(answer, input_tokens=0, output_tokens=0, raw=answer)

    async def close(self) -> None:
        """Nothing to close."""


class _Recording:
    def __init__(self, rows: Iterable[Mapping[str, str]]) -> None:
        self._by_document: dict[str, list[tuple[str, Mapping[str, str]]]] = defaultdict(list)
        for row in rows:
            self._by_document[row.get("document", "")].append((skeleton(row["quote"]), row))

    def answer(self, request: ChatRequest) -> str:
        text = skeleton(str(request.facts.get("text", "")))
        source = str(request.facts.get("source", "")).replace("\\", "/")
        names = dict.fromkeys((source, PurePath(source).name, PurePath(source).stem, ""))
        queries = [
            {"query": row["question"], "style": row.get("style", ""), "evidence": row["quote"]}
            for name in names
            for quote, row in self._by_document.get(name, ())
            if _stands_in(quote, text)
        ]
        return json.dumps({"queries": queries}, ensure_ascii=False)


def _stands_in(quote: str, text: str) -> bool:
    half = (len(quote) + 1) // 2
    return quote in text or (
        len(quote) >= SHORT and (quote[:half] in text or quote[-half:] in text)
    )


def _read(path: Path) -> tuple[list[dict[str, Any]], str]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"llm.answers: {path} cannot be read ({error.strerror}); expected a JSONL file of "
            "recorded answers"
        ) from error
    rejects: list[Reject] = []
    rows = []
    for line, row in read_jsonl(path, rejects, "generate"):
        if all(
            isinstance(row.get(field), str) and row[field].strip()
            for field in ("quote", "question")
        ):
            rows.append(row)
        else:
            rejects.append(
                Reject("generate", "field", 'needs the texts "quote" and "question"', line=line)
            )
    if rejects or not rows:
        first = f"line {rejects[0].line}: {rejects[0].message}" if rejects else "no line at all"
        raise ConfigError(f"llm.answers: {path}: {first}; each line needs quote and question")
    return rows, hashlib.sha256(data).hexdigest()[:12]
