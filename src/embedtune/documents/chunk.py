"""Cut documents into passages that a model can read whole.

Every character of a document is in a chunk, in a counted reject, or is white space between.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

from pydantic import Field, NonNegativeInt, field_validator, model_validator

from embedtune.documents.clean import has_content, useful_characters
from embedtune.documents.cuts import CELL_END, Costs, rows
from embedtune.documents.outline import TABLE_RULE, Block, blocks_of, cells_of
from embedtune.documents.prefix import FIELDS, PREFIXES, Prefixes
from embedtune.embed.tokens import Tokens
from embedtune.errors import ConfigError
from embedtune.files import visible
from embedtune.language import language_of
from embedtune.records import (
    Chunk,
    Counts,
    Document,
    Progress,
    Reject,
    Span,
    content_id,
    no_progress,
)
from embedtune.sentences import sentences
from embedtune.settings import Auto, PositiveInt, Settings

STAGE = "chunk"
SAME_TEXT = 3  # so many equal chunks of one document are kept
LONGEST_LABEL = 80  # characters of a row's first cell that are said again where the row is cut


class ChunkSettings(Settings):
    """How documents are cut."""

    tokens: PositiveInt | Auto = Field(
        256,
        description="Most tokens of a chunk, its prefix and the model's special tokens included; "
        "auto: 256, or what the model reads where that is less.",
    )
    overlap: NonNegativeInt = Field(
        32,
        description="Tokens repeated, in whole sentences, where a section had to be cut.",
    )
    prefix: str = Field(
        "headings",
        description="Context put before the text of a chunk: none, headings, title+headings, or a "
        "template with {title}, {path} (the headings) and {kind}.",
    )
    min_characters: NonNegativeInt = Field(
        24,
        description="Letters and digits a chunk must have (a Chinese character counts twice); "
        "shorter ones are merged with a neighbour, or rejected.",
    )

    @field_validator("prefix")
    @classmethod
    def _known_prefix(cls, value: str) -> str:
        if value in PREFIXES:
            return value
        named = re.findall(r"\{([^{}]*)\}", value)
        wrong = [name for name in named if name not in FIELDS]
        if not named or wrong or re.sub(r"\{[^{}]*\}", "", value).count("{"):
            raise ValueError(
                f"{visible(value)!r}: give {', '.join(PREFIXES)}, or a template with "
                + ", ".join(f"{{{name}}}" for name in FIELDS)
            )
        return value

    @model_validator(mode="after")
    def _overlap_below_tokens(self) -> Self:
        if isinstance(self.tokens, int) and self.overlap >= self.tokens:
            raise ValueError(
                f"overlap {self.overlap} must be less than tokens {self.tokens}; "
                "an eighth of it is usual"
            )
        return self

    def budget(self, tokens: Tokens) -> int:
        """Most tokens of a chunk for this model."""
        return min(256, tokens.max_tokens) if self.tokens == "auto" else self.tokens


@dataclass(frozen=True, slots=True)
class Chunking:
    """``rejected`` are the stretches of the documents that are in no chunk, one per reject that
    is not a repetition; ``counts`` are of chunks."""

    chunks: tuple[Chunk, ...]
    rejects: tuple[Reject, ...]
    rejected: tuple[Span, ...]
    counts: Counts


def chunk_documents(
    documents: Sequence[Document],
    tokens: Tokens,
    settings: ChunkSettings,
    progress: Progress = no_progress,
) -> Chunking:
    """Cut documents along their headings, paragraphs and sentences.

    A section (a Markdown heading, a chapter line, an article of a statute) is not mixed with its
    neighbours unless it has less than ``min_characters``. Sections over the budget are cut into
    parts of like size at paragraph and sentence ends, tables at row ends (the header row then goes
    into the title), anything else at white space or, at last, between characters that belong
    together. ``Chunk.text`` is ``document.text[start:end]``; ``Chunk.title`` is the prefix and
    holds the headings that stand above the chunk, never those inside it.

    Raises:
        ConfigError: The budget is not above the overlap, or leaves no room for text.
    """
    budget = settings.budget(tokens)
    [special] = tokens.count([""])
    if settings.overlap >= budget or budget - special < 2:
        raise ConfigError(
            f"chunks.tokens: {budget} tokens leave no room beside chunks.overlap "
            f"{settings.overlap} and the {special} special tokens of {tokens.name}"
        )
    chunks: list[Chunk] = []
    rejects: list[Reject] = []
    rejected: list[Span] = []
    repeated = 0
    for number, document in enumerate(documents):
        progress(number, len(documents))
        same: Counter[str] = Counter()
        for result in _Cutter(document, tokens, settings, budget, special).results():
            if isinstance(result, Reject):
                rejects.append(result)
                continue
            if isinstance(result, Span):
                rejected.append(result)
                continue
            same[result.text] += 1
            if same[result.text] > SAME_TEXT:
                repeated += 1
                rejected.append(result.span)
                rejects.append(_reject(document, "repeated", result.start, result.end,
                                       f"the same text stands more than {SAME_TEXT} times in this "
                                       "document", unusable=False))  # fmt: skip
            else:
                chunks.append(result)
    progress(len(documents), len(documents))
    total = len(chunks) + len(rejects)
    return Chunking(
        tuple(chunks),
        tuple(rejects),
        tuple(rejected),
        Counts(total, len(chunks), len(rejects) - repeated, repeated),
    )


def _reject(
    document: Document, code: str, start: int, end: int, why: str, *, unusable: bool
) -> Reject:
    return Reject(
        STAGE,
        code,
        f"{document.source}: characters {start} to {end}: {why}",
        file=document.source,
        item=document.id,
        excerpt=visible(document.text[start:end]),
        unusable=unusable,
    )


_Path = tuple[tuple[int, str], ...]  # (offset of the heading, its label), outermost first


@dataclass(frozen=True, slots=True)
class _Section:
    """Blocks under one heading; ``path`` ends with that heading."""

    path: _Path
    rank: int
    blocks: tuple[Block, ...]

    @property
    def body(self) -> bool:
        return any(block.kind != "heading" for block in self.blocks)


@dataclass(frozen=True, slots=True)
class _Atom:
    """What is not cut any further: a sentence, a table or code that fits, a row, a line."""

    start: int
    end: int
    cost: int  # tokens
    kind: str
    path: _Path
    ends_paragraph: bool = False
    header: str = ""  # of the table that this row continues


@dataclass(frozen=True, slots=True)
class _Part:
    """Neighbouring atoms that shall become a chunk."""

    atoms: tuple[_Atom, ...]

    @property
    def start(self) -> int:
        return self.atoms[0].start

    @property
    def end(self) -> int:
        return self.atoms[-1].end


def _main_path(atoms: Sequence[_Atom]) -> _Path:
    """The headings over most of the text; of equals, the first."""
    costs: Counter[_Path] = Counter()
    for atom in atoms:
        costs[atom.path] += atom.cost
    return max(costs, key=lambda path: costs[path])


class _Cutter:
    """Cuts one document."""

    def __init__(
        self,
        document: Document,
        tokens: Tokens,
        settings: ChunkSettings,
        budget: int,
        special: int,
    ) -> None:
        self.document = document
        self.text = document.text
        self.tokens = tokens
        self.settings = settings
        self.budget = budget
        self.special = special
        self._prefixes = Prefixes(document, tokens, settings.prefix, budget // 3, special)

    def results(self) -> Iterator[Chunk | Reject | Span]:
        """Chunks in the order of the text, and rejects, each with its span."""
        whole = (0, len(self.text))
        if not has_content(self.text):
            yield Span(self.document.id, *whole)
            yield _reject(self.document, "no-content", *whole, "no letters", unusable=True)
            return
        try:
            self.text.encode("utf-8")
        except UnicodeEncodeError as error:
            yield Span(self.document.id, *whole)
            why = f"half a character (lone surrogate) at {error.start}"
            yield _reject(self.document, "bad-text", *whole, why, unusable=True)
            return
        parts = [part for section in self._merged(self._sections()) for part in self._pack(section)]
        for part in self._joined(self._fitted(parts)):
            text = self.text[part.start : part.end]
            short = useful_characters(text) < self.settings.min_characters
            if short or not has_content(text):
                few = f"fewer than {self.settings.min_characters} letters and digits"
                code, why = ("too-short", few) if short else ("no-content", "no letters")
                yield Span(self.document.id, part.start, part.end)
                yield _reject(self.document, code, part.start, part.end, why, unusable=False)
            elif (chunk := self._chunk(part)).tokens > self.budget:
                yield Span(self.document.id, part.start, part.end)
                yield _reject(self.document, "over-budget", part.start, part.end,
                              f"one character of {chunk.tokens} tokens, allowed are {self.budget}",
                              unusable=True)  # fmt: skip
            else:
                yield chunk

    # ---- sections

    def _sections(self) -> list[_Section]:
        stack: list[tuple[int, int, str]] = []  # rank, offset, label
        sections: list[_Section] = []
        blocks: list[Block] = []

        def close() -> None:
            if blocks:
                path = tuple((offset, label) for _, offset, label in stack)
                rank = stack[-1][0] if stack else 0
                sections.append(_Section(path, rank, tuple(blocks)))
                blocks.clear()

        for block in blocks_of(self.document):
            if block.rank:
                close()
                while stack and stack[-1][0] >= block.rank:
                    stack.pop()
                stack.append((block.rank, block.start, block.label))
            blocks.append(block)
        close()
        return sections

    def _merged(self, sections: list[_Section]) -> list[list[_Section]]:
        """Sections to be packed together: headings with what follows, very short ones with the
        next of the same parent."""
        groups: list[list[_Section]] = []
        waiting: list[_Section] = []
        useful = 0  # characters of those that wait
        body = False  # whether one of them has any
        for section in sections:
            if waiting and not self._may_join(waiting[-1], section):
                groups.append(waiting)
                waiting, useful, body = [], 0, False
            if section.body and not body:
                # a list of headings, such as a table of contents; the last may belong to this one
                above = [one for one in waiting if one.path == section.path[: len(one.path)]]
                if len(waiting) - len(above) > 2:
                    groups.append([one for one in waiting if one not in above])
                    waiting, useful = above, sum(map(self._useful, above))
            waiting.append(section)
            useful += self._useful(section)
            body |= section.body
            if section.body and useful >= self.settings.min_characters:
                groups.append(waiting)
                waiting, useful, body = [], 0, False
        if waiting:
            groups.append(waiting)
        return groups

    def _useful(self, section: _Section) -> int:
        return useful_characters(self.text[section.blocks[0].start : section.blocks[-1].end])

    @staticmethod
    def _may_join(first: _Section, second: _Section) -> bool:
        """The second lies inside the first, or beside it under the same parent."""
        return second.path[: len(first.path)] == first.path or (
            len(second.path) >= len(first.path)
            and second.path[: len(first.path) - 1] == first.path[:-1]
        )

    # ---- atoms

    def _atoms(self, section: _Section) -> Iterator[_Atom]:
        room = self._room(section.path, "")
        for block in section.blocks:
            spans = Costs(self.tokens, self.text, block.start, block.end)
            if block.kind in ("table", "code") and spans.total > room:
                yield from self._lines(block.kind, block.start, block.end, section.path, spans)
                continue
            pieces = (
                list(sentences(self.text, block.start, block.end))
                if block.kind == "text"
                else [(block.start, block.end)]
            )
            for number, (start, end) in enumerate(pieces):
                last = number == len(pieces) - 1
                for a, b in spans.cut(start, end, room):
                    ends = last and b == end
                    yield _Atom(a, b, spans.between(a, b), block.kind, section.path, ends)

    def _lines(
        self, kind: str, begin: int, stop: int, path: _Path, spans: Costs
    ) -> Iterator[_Atom]:
        """A table or code line by line; a row that is too long is cut between its cells."""
        columns = self._columns(begin, stop) if kind == "table" else []
        header = " | ".join(filter(None, columns))
        limit = self._room(path, header)
        for number, (start, end) in enumerate(rows(self.text, begin, stop)):
            for a, b in spans.cut(start, end, limit, first=CELL_END if columns else None):
                above = header if number > 1 else ""
                if above and (a, b) != (start, end):
                    above = self._cut_header(columns, start, a, b)
                yield _Atom(a, b, spans.between(a, b), kind, path, b == stop, above)

    def _columns(self, start: int, end: int) -> list[str]:
        """The names over the columns of a table; none without a rule below them."""
        first, _, rest = self.text[start:end].partition("\n")
        return cells_of(first) if TABLE_RULE.match(rest.partition("\n")[0]) else []

    def _cut_header(self, columns: list[str], row: int, start: int, end: int) -> str:
        """What stands above a piece of a row: the names of its columns, and that of the row."""
        before = len(CELL_END.findall(self.text, row, start)) - (self.text[row] == "|")
        place = max(0, before)
        named = columns[place : place + len(cells_of(self.text[start:end]))]
        header = " | ".join(filter(None, named))
        label = next(filter(None, cells_of(self.text[row:start])), "") if before > 0 else ""
        return f"{label}: {header}" if 0 < len(label) <= LONGEST_LABEL else header

    # ---- packing

    def _pack(self, sections: list[_Section]) -> list[_Part]:
        """The sections' atoms in parts of at most the budget and of like size."""
        atoms = [atom for section in sections for atom in self._atoms(section)]
        longest = max((section.path for section in sections), key=len)
        room = self._room(longest, "")
        total = sum(atom.cost for atom in atoms)
        parts_needed = -(-total // room)
        if parts_needed <= 1:
            return [_Part(tuple(atoms))]
        goal = min(room, int(total / parts_needed * 1.15) + 1)
        parts: list[_Part] = []
        begin, cost = 0, 0
        for number, atom in enumerate(atoms):
            limit = self._room(longest, atoms[begin].header) if atoms[begin].header else room
            opens = (
                cost + atom.cost > limit
                or (cost + atom.cost > goal and not self._heading_only(atoms[begin:number]))
                or (cost > goal * 0.7 and self._paragraph_over(atoms, number, limit - cost))
                or (bool(atoms[begin].header) and atom.header != atoms[begin].header)
            )
            if number > begin and opens:
                keep = number
                while keep - 1 > begin and atoms[keep - 1].kind == "heading":
                    keep -= 1  # a heading goes with what follows it
                parts.append(_Part(tuple(atoms[begin:keep])))
                begin = self._overlap_from(atoms, begin, keep, limit - atom.cost)
                cost = sum(a.cost for a in atoms[begin:number])
            cost += atom.cost
        parts.append(_Part(tuple(atoms[begin:])))
        return self._without_scrap(parts)

    @staticmethod
    def _heading_only(atoms: Sequence[_Atom]) -> bool:
        return all(atom.kind == "heading" for atom in atoms)

    @staticmethod
    def _paragraph_over(atoms: list[_Atom], number: int, left: int) -> bool:
        """A paragraph begins here and does not fit into what is left."""
        if number and not atoms[number - 1].ends_paragraph:
            return False
        need = 0
        for atom in atoms[number:]:
            need += atom.cost
            if need > left:
                return True
            if atom.ends_paragraph:
                break
        return False

    def _overlap_from(self, atoms: list[_Atom], begin: int, end: int, left: int) -> int:
        """Index of the first sentence that is repeated in the next part."""
        first, cost = end, 0
        while first - 1 > begin:
            atom = atoms[first - 1]
            cost += atom.cost
            if (
                atom.kind != "text"
                or atom.path != atoms[end].path
                or atoms[end].kind != "text"
                or cost > min(self.settings.overlap, left)
            ):
                break
            first -= 1
        return first

    def _without_scrap(self, parts: list[_Part]) -> list[_Part]:
        """Sentences move from the last part but one to a last part that is too short."""
        if len(parts) < 2:
            return parts
        before, last = parts[-2].atoms, parts[-1].atoms
        while (
            len(before) > 1
            and before[-1].end <= last[0].start
            and before[-1].kind == last[0].kind == "text"
            and useful_characters(self.text[last[0].start : last[-1].end])
            < self.settings.min_characters
        ):
            before, last = before[:-1], (before[-1], *last)
        return [*parts[:-2], _Part(before), _Part(last)]

    # ---- the real tokens

    def _fitted(self, parts: list[_Part]) -> list[_Part]:
        """Parts whose embedded text is within the budget by the tokenizer; joining pieces may
        cost a token more than their sum, so that a part is halved where it is over."""
        todo, done = parts[::-1], []
        costs = self._costs_of(todo)
        while todo:
            part, cost = todo.pop(), costs.pop()
            halves = self._halved(part) if cost > self.budget else []
            if halves:
                todo += halves[::-1]
                costs += self._costs_of(halves[::-1])
            else:
                done.append(part)
        return done

    def _halved(self, part: _Part) -> list[_Part]:
        if len(part.atoms) > 1:
            half = sum(atom.cost for atom in part.atoms) / 2
            cost, middle = 0, 0
            while middle < len(part.atoms) - 1 and (not middle or cost < half):
                cost += part.atoms[middle].cost
                middle += 1
            return [_Part(part.atoms[:middle]), _Part(part.atoms[middle:])]
        [atom] = part.atoms
        spans = Costs(self.tokens, self.text, atom.start, atom.end)
        if atom.kind in ("table", "code") and "\n" in self.text[atom.start : atom.end]:
            lines = self._lines(atom.kind, atom.start, atom.end, atom.path, spans)
            return self._halved(_Part(tuple(lines)))
        pieces = list(spans.cut(atom.start, atom.end, max(1, spans.total // 2)))
        if len(pieces) == 1:
            return []
        return [
            _Part((replace(atom, start=a, end=b, cost=spans.between(a, b)),)) for a, b in pieces
        ]

    def _joined(self, parts: list[_Part]) -> list[_Part]:
        """Parts that are too short joined to the one before, or the next, where both fit."""
        joined: list[_Part] = []
        short = False  # the last of `joined` is too short
        for part in parts:
            is_short = (
                useful_characters(self.text[part.start : part.end]) < self.settings.min_characters
            )
            if joined and (short or is_short):
                both = self._together(joined[-1], part)
                if both is not None:
                    joined[-1] = both
                    short = (
                        short
                        and is_short
                        and (
                            useful_characters(self.text[both.start : both.end])
                            < self.settings.min_characters
                        )
                    )
                    continue
            joined.append(part)
            short = is_short
        return joined

    def _together(self, first: _Part, second: _Part) -> _Part | None:
        a, b = first.atoms[-1].path, second.atoms[0].path
        related = a[: len(b)] == b or b[: len(a)] == a or a[:-1] == b[:-1]
        atoms = first.atoms + tuple(atom for atom in second.atoms if atom.start >= first.end)
        both = _Part(atoms)
        return both if related and self._cost(both) <= self.budget else None

    # ---- titles

    def _title(self, part: _Part) -> str:
        first = part.atoms[0]
        labels = tuple(label for offset, label in first.path if offset < part.start)
        return self._prefixes.of(labels, first.header)[0]

    def _room(self, path: _Path, header: str) -> int:
        """Tokens left for text under the full path."""
        cost = self._prefixes.of(tuple(label for _, label in path), header)[1]
        return max(1, self.budget - cost - 1)

    # ---- chunks

    def _cost(self, part: _Part) -> int:
        return self._costs_of([part])[0]

    def _costs_of(self, parts: Sequence[_Part]) -> list[int]:
        texts = [
            f"{self._title(part)} {self.text[part.start : part.end]}".strip() for part in parts
        ]
        return self.tokens.count(texts) if texts else []

    def _chunk(self, part: _Part) -> Chunk:
        title = self._title(part)
        text = self.text[part.start : part.end]
        body = [atom for atom in part.atoms if atom.kind != "heading"]
        kinds = {atom.kind for atom in body}
        page = bisect_right(self.document.pages, part.start, key=lambda mark: mark[0])
        draft = Chunk(
            id=content_id("c", self.document.id, part.start, part.end, title, text),
            document=self.document.id,
            start=part.start,
            end=part.end,
            title=title,
            text=text,
            section=tuple(label for _, label in _main_path(body or part.atoms)),
            page=self.document.pages[page - 1][1] if page else None,
            language=language_of(text),
            kind=kinds.pop() if len(kinds) == 1 else "text",
            source=self.document.source,
        )
        return replace(draft, tokens=self.tokens.count([draft.embedded])[0])
