"""Tables on a PDF page: grids of drawn lines, and rows of cells that stand below each other.

What looks like a table on paper is only words and lines in the file. Words are put into rows by
their baselines and into columns by the white space that goes down through all rows; drawn lines
and shaded rows say which rows belong together and how far a header reaches.
"""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median

from embedtune.documents.clean import clean
from embedtune.documents.grid import Cell, spread, table_row
from embedtune.documents.pdf_lines import Line, Word, columns, gaps, joined, line_of, spread_out
from embedtune.documents.pdf_rules import Grid, Rules, grids

WIDE_GAP = 1.0  # em between two cells; in justified text it is less
FIGURE_GAP = 0.45  # em between two figures, or before a sign of currency
ROW_GAP = 3.2  # em from a row of a table to the next at most
TIGHT = 0.88  # times the usual distance of rows: lines of one row
SAME_ROW = 0.4  # em between baselines of one row
MOST_SHIFT = 45.0  # points by which the text of left and right pages differs
PROSE_LETTERS = 20  # of a line of a column of running text
PROSE_FILLED = 0.7  # of its width that most of its lines fill
LONGEST_CELL = 600  # letters; a grid with longer cells lays out text, it is no table

_SIGN = r"(?:[A-Z]{0,3}[$€£¥￥₩]|RMB|USD|EUR|CNY|HKD|Rs\.?)"
_CURRENCY = re.compile(rf"\(?{_SIGN}")
_NUMBER = r"[(\[（]?[-+−–~<>≤≥±]?\d(?:[\d,.:/'’\-–%]*[\d%])?(?:e[-+]?\d+)?[)\]）]?"
_FIGURE = re.compile(
    rf"\(?{_SIGN}?\s?{_NUMBER}\s?(?:%|‰|pts|bps|x|倍|元|万|亿|万元|亿元)?[)）]?(?:[*†‡]|\s?\(\w\))*"
    rf"|\(?{_SIGN}?\s?(?:—|–|-|--|–\s?–)\s?%?\)?(?:\s?\(\w\))*|[nN]/?[aA]|不适用|nm"
)
_VALUE = re.compile(rf"(?:{_NUMBER}|[—–])%?")
_SUFFIX = re.compile(r"(?:%|‰|\)|\)\s?%|pts|bps)")
_MARK = re.compile(r"(?:\(\w\)|[*†‡]+)")
_YEAR = re.compile(
    r"(?:FY|fiscal|Q[1-4]|H[12])?\s?'?(?:19|20)\d\d(?:[AEF]|年度?|年末)?(?:[/-]\d\d(?:\d\d)?)?"
    r"|\d{4}[-/.年]\d{1,2}(?:[-/.月]\d{1,2})?[日月]?|\d{1,2}/\d{1,2}/\d{2,4}|Q[1-4]",
    re.IGNORECASE,
)
_BULLET = re.compile(r"[•●▪◦‣∙·■□–—*-]")
_NUMBERING = re.compile(
    r"[•●▪◦‣∙·■□–—*-]|[(（]?[A-Za-z0-9ivxIVX]{1,4}[.)）．、]|[(（]?[一二三四五六七八九十]{1,3}[)）、．.]"
    r"|[①-⑳]|\d{1,2}(?:\.\d{1,2}){1,3}\.?|第[一二三四五六七八九十百千零〇0-9]+[章节条款篇编]"
    r"|(?:Item|Part|Section|Chapter|Article|Note|Table|Figure)\s+\w{1,4}[.:]?|[注表图]\s?\d+[:：.]?",
    re.IGNORECASE,
)
_LEADER = re.compile(r"(?:\.\s?){4,}|…{2,}|·{4,}")
_ENDS_SENTENCE = tuple("。；！？.;!?")


@dataclass(slots=True)
class Table:
    """A table, or the part of one that stands on this page.

    ``columns`` are their left and right sides. ``header`` has as many texts as there are columns,
    all empty where the table has none.
    """

    header: list[str]
    rows: list[list[str]]
    columns: list[tuple[float, float]]
    top: float
    bottom: float
    plain_header: bool = False  # its first row, in the type of the others
    uncertain: bool = False
    continues: bool = False  # the table at the end of the page before

    def markdown(self) -> str:
        rows = [table_row(row) for row in self.rows]
        if not self.continues:
            rows[:0] = [table_row(self.header), "|" + " --- |" * len(self.columns)]
        return "\n".join(rows)


def continued(first: Table, second: Table) -> Table | None:
    """``second`` as more rows of ``first``, its header left out where it repeats that of the first;
    None where its columns are not among those of the first, or it has a header of its own."""
    shift = first.columns[0][0] - second.columns[0][0]
    if abs(shift) > MOST_SHIFT:
        return None
    places: list[int] = []
    for left, right in second.columns:
        after = range(places[-1] + 1 if places else 0, len(first.columns))
        over = [n for n in after if _shared((left + shift, right + shift), first.columns[n]) > 0.3]
        if not over:
            return None
        places.append(over[0])
    rows = second.rows
    if any(second.header):
        same = [_bare(text) for text in second.header] == [_bare(first.header[n]) for n in places]
        if not same and not second.plain_header:
            return None
        rows = rows if same else [second.header, *rows]
    laid = []
    for row in rows:
        cells = [""] * len(first.columns)
        for place, cell in zip(places, row, strict=True):
            cells[place] = cell
        laid.append(cells)
    return replace(second, header=first.header, rows=laid, columns=first.columns, continues=True)


def _shared(one: tuple[float, float], other: tuple[float, float]) -> float:
    """The part of the shorter stretch that lies in the other."""
    both = min(one[1], other[1]) - max(one[0], other[0])
    return both / max(1.0, min(one[1] - one[0], other[1] - other[0]))


def _bare(text: str) -> str:
    return "".join(text.split()).casefold()


# ---- rows and cells


@dataclass(slots=True)
class _Piece:
    """Words of one row that stand together: a cell, or a line of one."""

    words: list[Word]

    @property
    def left(self) -> float:
        return self.words[0].left

    @property
    def right(self) -> float:
        return max(word.right for word in self.words)

    @property
    def middle(self) -> float:
        return (self.left + self.right) / 2

    @property
    def text(self) -> str:
        return joined(word.text for word in self.words)

    @property
    def bold(self) -> bool:
        return all(word.bold for word in self.words)

    @property
    def figure(self) -> bool:
        return bool(_FIGURE.fullmatch(self.text))

    @property
    def year(self) -> bool:
        return bool(_YEAR.fullmatch(self.text))


@dataclass(slots=True)
class _Row:
    """Words on one baseline."""

    base: float
    em: float
    pieces: list[_Piece] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.pieces[0].left

    @property
    def right(self) -> float:
        return self.pieces[-1].right

    @property
    def text(self) -> str:
        return " ".join(piece.text for piece in self.pieces)

    @property
    def several(self) -> bool:
        """Whether there are cells: a number before a text makes none, nor dots up to a page."""
        if any(_LEADER.search(piece.text) for piece in self.pieces):
            return False
        return len(self.pieces) > 2 or (
            len(self.pieces) == 2 and not _NUMBERING.fullmatch(self.pieces[0].text)
        )

    @property
    def bold(self) -> bool:
        return all(piece.bold for piece in self.pieces)

    @property
    def words(self) -> Iterator[Word]:
        for piece in self.pieces:
            yield from piece.words


def _rows(words: Iterable[Word]) -> list[_Row]:
    """Words by their baselines, from top to bottom."""
    rows: list[tuple[float, list[Word]]] = []
    for word in sorted(words, key=lambda word: (-word.base, word.left)):
        if rows and rows[-1][0] - word.base <= SAME_ROW * word.size:
            rows[-1][1].append(word)
        else:
            rows.append((word.base, [word]))
    found = []
    for _, members in rows:
        members.sort(key=lambda word: word.left)
        em = median(word.size for word in members)
        found.append(_Row(median(word.base for word in members), em, _pieces(members, em)))
    return found


def _pieces(words: list[Word], em: float) -> list[_Piece]:
    if spread_out(words) and len(words) > 3 and max(gaps(words)) < 2 * WIDE_GAP * em:
        return [_Piece(words)]
    pieces = [_Piece([words[0]])]
    for word in words[1:]:
        before = pieces[-1].words[-1]
        gap = word.left - max(w.right for w in pieces[-1].words)
        figures = _VALUE.fullmatch(before.text) and _VALUE.fullmatch(word.text)
        sign = _CURRENCY.fullmatch(word.text)
        narrow = (figures or sign) and not word.fixed
        limit = FIGURE_GAP if narrow else WIDE_GAP
        if gap > limit * em:
            pieces.append(_Piece([word]))
        else:
            pieces[-1].words.append(word)
    merged = [pieces[0]]
    for piece in pieces[1:]:
        if _one_cell(merged[-1], piece, em):
            merged[-1].words += piece.words
        else:
            merged.append(piece)
    if len(merged) > 1 and _BULLET.fullmatch(merged[0].text):
        merged[:2] = [_Piece(merged[0].words + merged[1].words)]
    return merged


def _one_cell(before: _Piece, after: _Piece, em: float) -> bool:
    """A sign of currency and its figure, a figure and its per cent or its footnote."""
    if _CURRENCY.fullmatch(before.text):
        return after.figure
    if not before.figure:
        return False
    gap = after.left - before.right
    if _SUFFIX.fullmatch(after.text):
        return gap < 2 * em
    small = after.words[0].size < 0.95 * before.words[-1].size
    return bool(_MARK.fullmatch(after.text)) and gap < (1.0 if small else 0.35) * em


def _figure_text(text: str) -> str:
    """Sign, number and per cent without blanks between them."""
    if not _FIGURE.fullmatch(text):
        return text
    text = re.sub(rf"({_SIGN})\s+", r"\1", text)
    return re.sub(r"(?<=[\d—–-])\s+(?=[%‰)])", "", text)


# ---- tables of a page


def ruled_tables(lines: list[Line], rules: Rules) -> tuple[list[Table], list[Line], set[int]]:
    """Tables in grids of drawn lines, and the lines without their words; and the ids of words that
    stand in boxes of running text, which are no cells of anything."""
    tables: list[Table] = []
    taken: set[int] = set()
    boxed: set[int] = set()
    for grid in grids(rules):
        inside = [
            word
            for line in lines
            for word in line.words
            if id(word) not in taken and _within(word, grid)
        ]
        cells = _cells(grid, inside)
        if table := _ruled(grid, cells):
            tables.append(table)
            taken |= set(map(id, inside))
        elif any(_is_prose([_Piece(list(row.words)) for row in rows]) for rows in cells.values()):
            boxed |= set(map(id, inside))
    return tables, without(lines, taken), boxed


def aligned_tables(
    words: Iterable[Word], rules: Rules, across: float | None = None
) -> tuple[list[Table], set[int]]:
    """Tables of rows of cells that stand below each other, and the ids of their words.

    Args:
        across: Only tables that reach over this place, not those that end beside it.
    """
    tables: list[Table] = []
    taken: set[int] = set()
    for block in _aligned(_rows(words), rules):
        if across is None or block.reaches_over(across):
            tables.append(block.table())
            taken |= {id(word) for row in block.rows for word in row.words}
    return tables, taken


def without(lines: list[Line], taken: set[int]) -> list[Line]:
    """The lines without these words, by their ids."""
    left = []
    for line in lines:
        words = [word for word in line.words if id(word) not in taken]
        if len(words) == len(line.words):
            left.append(line)
        elif words:
            left.append(line_of(words, line))
    return left


# ---- grids of drawn lines


def _within(word: Word, grid: Grid) -> bool:
    x, y = (word.left + word.right) / 2, word.base + 0.3 * word.size
    return grid.columns[0] < x < grid.columns[-1] and grid.rows[-1] < y < grid.rows[0]


_Cells = dict[tuple[int, int], list[_Row]]


def _cells(grid: Grid, words: list[Word]) -> _Cells:
    """The lines of the cells, by their first row and column."""
    place = {
        (row + down, column + beside): (row, column)
        for row, column, tall, wide in grid.cells
        for down in range(tall)
        for beside in range(wide)
    }
    found: dict[tuple[int, int], list[Word]] = {}
    for word in words:
        row = sum(word.base + 0.3 * word.size < border for border in grid.rows[1:-1])
        column = sum((word.left + word.right) / 2 > border for border in grid.columns[1:-1])
        found.setdefault(place[row, column], []).append(word)
    return {at: _rows(members) for at, members in found.items()}


def _ruled(grid: Grid, cells: _Cells) -> Table | None:
    """The grid as a table; None where it holds prose, a drawing, or rows without lines."""
    rows_used, columns_used = {row for row, _ in cells}, {column for _, column in cells}
    if min(len(rows_used), len(columns_used)) < 2 or 4 * len(cells) < len(grid.cells):
        return None
    if _unruled(cells):
        return None
    texts = {
        at: _figure_text(clean(joined(row.text for row in rows)).text) for at, rows in cells.items()
    }
    if max(map(len, texts.values())) > LONGEST_CELL and len(grid.cells) < 9:
        return None
    laid = [
        [
            Cell(texts.get((row, column), ""), tall, wide)
            for top, column, tall, wide in grid.cells
            if top == row
        ]
        for row in range(len(grid.rows) - 1)
    ]
    rows, sides = _tidied(spread(laid), list(pairwise(grid.columns)))
    if len(sides) < 2 or len(rows) < 2:
        return None
    bold = all(row.bold for (at, _), rows in cells.items() if at == min(rows_used) for row in rows)
    heads = _heads(rows)
    header = [
        joined(dict.fromkeys(filter(None, column))) for column in zip(*rows[:heads], strict=True)
    ] or [""] * len(sides)
    return Table(header, rows[heads:], sides, grid.rows[0], grid.rows[-1], plain_header=not bold)


def _unruled(cells: _Cells) -> bool:
    """Whether the lines of cells beside each other are rows of their own."""
    for row in {row for row, _ in cells}:
        beside = [rows for (at, _), rows in cells.items() if at == row and len(rows) > 2]
        short = [rows for rows in beside if median(columns(r.text) for r in rows) < PROSE_LETTERS]
        if len(short) < 2 or len(short) < len(beside):
            continue
        first, second = ({round(r.base) for r in rows} for rows in short[:2])
        if len(first & second) > 2:
            return True
    return False


def _tidied(
    rows: list[list[str]], sides: list[tuple[float, float]]
) -> tuple[list[list[str]], list[tuple[float, float]]]:
    """Signs of currency and per cent put to their figures, empty rows and columns dropped."""
    width = len(sides)
    rows = [row + [""] * (width - len(row)) for row in rows]
    for row in rows:
        for here in range(width - 1):
            if _CURRENCY.fullmatch(row[here]) and _FIGURE.fullmatch(row[here + 1]):
                row[here], row[here + 1] = "", _figure_text(f"{row[here]} {row[here + 1]}")
            if _SUFFIX.fullmatch(row[here + 1]) and _FIGURE.fullmatch(row[here]):
                row[here], row[here + 1] = _figure_text(f"{row[here]} {row[here + 1]}"), ""
    kept = [n for n in range(width) if any(row[n] for row in rows)]
    return [[row[n] for n in kept] for row in rows if any(row)], [sides[n] for n in kept]


def _heads(rows: list[list[str]]) -> int:
    """How many of the first rows are the header: none where the first has figures; more than one
    where those below have no label."""
    heads = 0
    for row in rows[:4]:
        figures = any(_FIGURE.fullmatch(cell) and not _YEAR.fullmatch(cell) for cell in row[1:])
        if figures or (heads and row[0] not in ("", rows[0][0])):
            break
        heads += 1
    return min(heads, len(rows) - 1)


# ---- rows of cells below each other


def _aligned(rows: list[_Row], rules: Rules) -> Iterator["_Block"]:
    free = 0  # the first row that is in no table
    for first, last in _runs(rows):
        for begin, end in _cut(rows, first, last + 1):
            begin = _up(rows, begin, end, free)
            end = _down(rows, begin, end)
            block = _Block(rows[begin:end], rules)
            if block.is_table and not _contents(rows[max(0, begin - 6) : end]):
                yield block
                free = end


def _runs(rows: list[_Row]) -> Iterator[tuple[int, int]]:
    """First and last of rows that follow each other and mostly have several cells."""
    here = 0
    left, right = min((r.left for r in rows), default=0), max((r.right for r in rows), default=0)
    while here < len(rows):
        if not rows[here].several:
            here += 1
            continue
        first = last = here
        while here + 1 < len(rows):
            below = rows[here + 1]
            if rows[here].base - below.base > ROW_GAP * max(below.em, rows[here].em):
                break
            if not below.several and (here + 1 - last > 8 or _prose(below, right - left)):
                break
            here += 1
            if below.several:
                last = here
        yield first, last
        here = last + 1


def _prose(row: _Row, width: float) -> bool:
    """A line of running text, in a text of this width."""
    share = (row.right - row.left) / width if width else 0.0
    return share > 0.85 or (share > 0.5 and row.text.endswith(_ENDS_SENTENCE))


def _cut(rows: list[_Row], begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Stretches of a run that are one table each: a new one begins with a new header in bold type,
    and after a line of text across the columns."""
    sides = _columns(rows[begin:end])
    for here in range(begin + 1, end):
        row = rows[here]
        across = not row.several and _over(row, sides) > 1
        if across and (columns(row.text) > 60 or row.text.endswith(_ENDS_SENTENCE)):
            border = here
        elif _begins_anew(rows[begin:here], row):
            border = here - 1
        else:
            continue
        stop = border
        while stop > begin and not rows[stop].several:
            stop -= 1
        yield begin, stop + 1
        start = border + 1
        while start < end and not rows[start].several:
            start += 1
        if start < end:
            yield from _cut(rows, start, end)
        return
    yield begin, end


def _begins_anew(above: list[_Row], row: _Row) -> bool:
    """A row of headings in bold type below rows of figures."""
    return (
        row.several
        and row.bold
        and not any(piece.figure and not piece.year for piece in row.pieces)
        and any(piece.figure and not piece.year for r in above for piece in r.pieces[1:])
    )


def _up(rows: list[_Row], begin: int, end: int, free: int) -> int:
    """The first row of the table with the headings above it that stand beside its first column;
    a label in the first column may stand between."""
    sides = _columns(rows[begin:end])
    here = begin
    while here > free and len(sides) > 1:
        row, below = rows[here - 1], rows[here]
        if row.several or row.base - below.base > 2.5 * row.em or row.right > sides[-1][1] + row.em:
            break
        middle, end_of_last = (row.left + row.right) / 2, sides[-1][1]
        titles = abs(middle - (sides[0][0] + end_of_last) / 2)
        heads = abs(middle - (sides[1][0] + end_of_last) / 2)
        close = row.base - below.base < 1.4 * row.em and _over(row, sides[1:]) == 1
        if row.left > sides[0][1] and (heads < titles or close):
            begin = here - 1
        elif row.right > sides[1][0] or begin - here > 1:
            break
        here -= 1
    return begin


def _down(rows: list[_Row], begin: int, end: int) -> int:
    """The end of the table with further lines of the cells of its last row."""
    sides = _columns(rows[begin:end])
    usual = _pitch(rows[begin:end])
    while end < len(rows):
        row, above = rows[end], rows[end - 1]
        if row.several or _over(row, sides) != 1:
            break
        if above.base - row.base > TIGHT * min(usual, 1.5 * row.em):
            break
        end += 1
    return end


def _pitch(rows: list[_Row]) -> float:
    """The usual distance of a row with several cells from the line above it."""
    steps = [above.base - row.base for above, row in pairwise(rows) if row.several]
    return median(steps) if steps else 0.0


def _columns(rows: list[_Row]) -> list[tuple[float, float]]:
    """Left and right of the columns: where nothing stands in any row, one ends.

    Rows with few cells may be headings across several columns; they do not count. In long tables
    a row in eight may cross.
    """
    most = max(len(row.pieces) for row in rows)
    judged = [row for row in rows if row.several and len(row.pieces) > most / 2]
    usual = Counter(len(row.pieces) for row in judged).most_common(1)[0][0]
    em = median(row.em for row in judged)
    found: list[tuple[float, float]] = []
    for crossing in range(1 + len(judged) // 8):
        found = _covered(
            [(piece.left, piece.right) for row in judged for piece in row.pieces],
            crossing,
            0.3 * em,
        )
        if len(found) >= usual:
            break
    return found


def _covered(
    spans: list[tuple[float, float]], crossing: int, gap: float
) -> list[tuple[float, float]]:
    """Stretches that more than ``crossing`` spans cover; those nearer than ``gap`` are one."""
    events = sorted([(left, 1) for left, _ in spans] + [(right, -1) for _, right in spans])
    depth, begin = 0, 0.0
    found: list[tuple[float, float]] = []
    for place, step in events:
        if depth <= crossing < depth + step:
            begin = place
        elif depth + step <= crossing < depth:
            if found and begin - found[-1][1] < gap:
                begin = found.pop()[0]
            found.append((begin, place))
        depth += step
    return found


def _over(row: _Row, sides: list[tuple[float, float]]) -> int:
    """How many columns a line stands over."""
    return sum(row.left < right and left < row.right for left, right in sides)


def _meet(one: _Piece, other: _Piece) -> bool:
    return one.left < other.right and other.left < one.right


def _contents(rows: list[_Row]) -> bool:
    """A table of contents: the last cells are pages."""
    if not any(_CONTENTS.search(row.text) for row in rows[:8]):
        return False
    pages = [row.pieces[-1].text for row in rows if row.several]
    numbers = [int(page) for page in pages if page.isdecimal()]
    rising = sum(one <= other for one, other in pairwise(numbers))
    return min(len(numbers), rising + 1) >= 0.7 * len(pages)


_CONTENTS = re.compile(r"contents|\bpage\b|目\s*[录錄次]|页码", re.IGNORECASE)

_Span = tuple[int, int]  # the first column and the one after the last


class _Block:
    """Rows that may be a table; ``spans`` are the columns of every piece."""

    def __init__(self, rows: list[_Row], rules: Rules) -> None:
        self.rows = rows
        self.sides = _columns(rows)
        self._rules = rules
        self.spans = [[self._span(piece) for piece in row.pieces] for row in rows]
        self.uncertain = False

    def _span(self, piece: _Piece) -> _Span:
        over = [n for n, (left, right) in enumerate(self.sides)
                if piece.left < right and left < piece.right]  # fmt: skip
        if over:
            return over[0], over[-1] + 1
        nearest = min(
            range(len(self.sides)),
            key=lambda n: max(self.sides[n][0] - piece.right, piece.left - self.sides[n][1]),
        )
        return nearest, nearest + 1

    # ---- whether it is one

    @property
    def is_table(self) -> bool:
        several = sum(row.several for row in self.rows)
        figures = sum(self._is_data(number) for number in range(len(self.rows)))
        if len(self.sides) < 2 or several < 2:
            return False
        if several < 3 and not (figures and (figures > 1 or self._ruled())):
            return False
        if not figures and all(word.fixed for row in self.rows for word in row.words):
            return False  # a program rather
        first = next((n for n in range(len(self.rows)) if self._is_data(n)), 0)
        pieces = [self._pieces_of(column, first) for column in range(len(self.sides))]
        prose = sum(map(_is_prose, pieces))
        return prose < 2 and all(map(_lined_up, pieces[1:]))

    def _pieces_of(self, column: int, first: int) -> list[_Piece]:
        """What stands in a column alone, from a row on."""
        return [
            piece
            for row, spans in zip(self.rows[first:], self.spans[first:], strict=True)
            for piece, span in zip(row.pieces, spans, strict=True)
            if row.several and span == (column, column + 1)
        ]

    def _ruled(self) -> bool:
        """Whether anything is drawn among the rows."""
        top, bottom = self.rows[0].base, self.rows[-1].base
        left, right = self.sides[0][0], self.sides[-1][1]
        return any(
            bottom <= rule.at <= top and rule.start < right and rule.end > left
            for rule in self._rules.across
        ) or any(
            box[1] < top and box[3] > bottom and box[0] < right and box[2] > left
            for box in self._rules.fills
        )

    def _is_data(self, number: int) -> bool:
        """A row with a figure, other than a year, beside the first column."""
        return any(
            piece.figure and not piece.year and span[0] > 0
            for piece, span in zip(self.rows[number].pieces, self.spans[number], strict=True)
        )

    def reaches_over(self, x: float) -> bool:
        """Whether a column stands there, or nearly all rows have cells on both sides."""
        both = sum(row.left < x < row.right for row in self.rows if row.several)
        several = sum(row.several for row in self.rows)
        return any(left < x < right for left, right in self.sides) or both > 0.9 * several

    # ---- the table

    def table(self) -> Table:
        heads = self._heads()
        plain = not all(row.bold for row in self.rows[: heads or 1] if row.several)
        header = self._header(heads) if heads else [""] * len(self.sides)
        groups = self._groups(heads)
        if not heads and not any(self._is_data(n) for n in range(len(self.rows))):
            heads = self._text_heads(groups)
            header = self._cells(groups[0]) if heads else header
            groups = groups[heads:]
        top, bottom = self.rows[0], self.rows[-1]
        return Table(
            header,
            [self._cells(group) for group in groups],
            self.sides,
            top.base + top.em,
            bottom.base,
            plain_header=plain,
            uncertain=self.uncertain,
        )

    def _heads(self) -> int:
        """How many rows are the header: those before the first with figures.

        Not a label alone just above the figures; and of rows that have a label and texts and are
        not bold, at most one.
        """
        count = next((n for n in range(len(self.rows)) if self._is_data(n)), 0)
        while count and all(span[0] == 0 for span in self.spans[count - 1]):
            count -= 1
        plain = [
            n for n in range(count)
            if self.spans[n][0][0] == 0 and self.rows[n].several
            and not self.rows[n].bold
        ]  # fmt: skip
        if len(plain) < 2:
            return count
        return plain[0] if plain[0] else 0

    def _text_heads(self, groups: list[list[int]]) -> int:
        """1 if the first row of a table without figures is its header: in bold type, or with a line
        under it, or with texts over three columns and more."""
        last = self.rows[groups[0][-1]]
        bold = all(self.rows[number].bold for number in groups[0])
        ruled = any(
            0 <= last.base - rule.at < 1.2 * last.em and rule.start < last.left < rule.end
            for rule in self._rules.across
        )
        filled = len(self.sides) > 2 and all(self._cells(groups[0]))
        return int(len(groups) > 2 and (bold or ruled or filled))

    def _header(self, heads: int) -> list[str]:
        """What stands above each column; what stands above all but the first goes to the first."""
        texts: list[list[str]] = [[] for _ in self.sides]
        alone: set[int] = set()  # columns that have a heading of their own
        shared: set[int] = set()
        for cell in self._head_cells(heads):
            first, end = self._head_span(cell)
            if first <= 1 and end == len(self.sides) > 2:
                first, end = 0, 1
            for column in range(first, end):
                texts[column] += [piece.text for _, piece in cell]
            (shared if end - first > 1 else alone).update(range(first, end))
        self.uncertain |= bool(shared - alone) and not self._ruled()
        return [clean(joined(pieces)).text for pieces in texts]

    def _head_cells(self, heads: int) -> list[list[tuple[int, _Piece]]]:
        """Pieces of the header, with the numbers of their rows: those that stand below each other,
        one by one and without a line between them, are one cell."""
        cells: list[list[tuple[int, _Piece]]] = []
        for number in range(heads):
            row = self.rows[number]
            above = [cell for cell in cells if cell[-1][0] == number - 1]
            for piece in row.pieces:
                over = [cell for cell in above if _meet(cell[-1][1], piece)]
                if (
                    len(over) == 1
                    and sum(_meet(over[0][-1][1], other) for other in row.pieces) == 1
                    and self.rows[number - 1].base - row.base < 1.5 * row.em
                    and not self._rule_under(*over[0][-1])
                ):
                    over[0].append((number, piece))
                else:
                    cells.append([(number, piece)])
        return cells

    def _head_span(self, cell: list[tuple[int, _Piece]]) -> _Span:
        """The columns below a cell of the header: those above the line that is drawn under it.

        Without a line those that it stands over; all, where it is alone in the middle of them.
        """
        number, last = cell[-1]
        middles = [(left + right) / 2 for left, right in self.sides]
        if under := self._rule_under(number, last):
            below = [n for n, x in enumerate(middles) if under[0] <= x <= under[1]]
            if below:
                return below[0], below[-1] + 1
        spans = [self._span(piece) for _, piece in cell]
        first, end = min(span[0] for span in spans), max(span[1] for span in spans)
        beside = [p for n, _ in cell for p in self.rows[n].pieces if p.left > self.sides[0][1]]
        if first and len(beside) == len(cell) and len(self.sides) > 2:
            left, right = self.sides[1][0], self.sides[-1][1]
            if end - first > 1 or abs(last.middle - (left + right) / 2) < 0.1 * (right - left):
                return 1, len(self.sides)
        return first, end

    def _rule_under(self, number: int, piece: _Piece) -> tuple[float, float] | None:
        """Both ends of a line that is drawn under this piece of a row alone."""
        row = self.rows[number]
        for rule in self._rules.across:
            close = 0 <= row.base - rule.at < 1.2 * row.em
            over = [other for other in row.pieces if rule.start < other.middle < rule.end]
            if close and over == [piece]:
                return rule.start, rule.end
        return None

    # ---- lines to rows

    def _groups(self, heads: int) -> list[list[int]]:
        """The numbers of the lines of every row below the header."""
        bands = self._bands(heads)
        usual = _pitch(self.rows[heads:])
        groups: list[list[int]] = []
        for number in range(heads, len(self.rows)):
            if groups and self._continues(groups[-1], number, bands, usual):
                groups[-1].append(number)
            else:
                groups.append([number])
        return groups

    def _continues(
        self, group: list[int], number: int, bands: dict[int, int], usual: float
    ) -> bool:
        """Whether a line belongs to the row of the lines above it."""
        row, above = self.rows[number], self.rows[group[-1]]
        step = above.base - row.base
        if any(self._figures(n) & self._figures(number) for n in group):
            return False
        if group == [0] and above.bold and not row.bold:
            return False
        if step < 0.8 * row.em:
            return True
        if bands:
            return bands[number] == bands[group[-1]]
        tight = step < TIGHT * usual and step < 1.5 * row.em
        lower = row.pieces[0].text[:1].islower() and step < 1.5 * row.em
        here = {n for span in self.spans[number] for n in range(*span)}
        there = {n for line in group for span in self.spans[line] for n in range(*span)}
        ended = above.text.endswith((":", "："))
        if here == {0}:  # more of a label
            return (tight or lower) and not (ended and there == {0})
        if there == {0}:  # its label began above
            return (tight or (lower and 0 in here)) and not ended
        if 0 not in here and not self._figures(number):
            return here <= there and (tight or len(here) == 1)
        if self._figures(number) or not all(p.text[:1].islower() for p in row.pieces):
            return tight and not self._figures(number) and here <= there
        return step < 1.5 * row.em

    def _figures(self, number: int) -> set[int]:
        """Columns beside the first in which a line has figures."""
        return {
            span[0]
            for piece, span in zip(self.rows[number].pieces, self.spans[number], strict=True)
            if span[0] > 0 and piece.figure
        }

    def _bands(self, heads: int) -> dict[int, int]:
        """Which lines lie in the same shaded row, or between the same lines across the table.

        Empty where shades and lines do not part single rows.
        """
        left, right = self.sides[0][0], self.sides[-1][1]
        covered: Counter[tuple[float, float]] = Counter()
        for box in self._rules.fills:
            wide = min(box[2], right) - max(box[0], left)
            if wide > 0:
                covered[round(box[1]), round(box[3])] += wide
        for rule in self._rules.across:
            wide = min(rule.end, right) - max(rule.start, left)
            if wide > 0:
                covered[round(rule.at), round(rule.at)] += wide
        borders = sorted({
            place for pair, wide in covered.items() if wide > 0.6 * (right - left) for place in pair
        })  # fmt: skip
        rows = {n: self.rows[n].base + 0.3 * self.rows[n].em
                for n in range(heads, len(self.rows))}  # fmt: skip
        bands = {n: bisect_left(borders, height) for n, height in rows.items()}
        if len(set(bands.values())) < max(3, 0.4 * len(bands)):
            return {}
        for number, below in pairwise(bands):
            if bands[number] == bands[below] and self._figures(number) & self._figures(below):
                return {}
        return bands

    def _cells(self, group: list[int]) -> list[str]:
        texts: list[list[str]] = [[] for _ in self.sides]
        for number in group:
            row = self.rows[number]
            for piece, (first, end) in zip(row.pieces, self.spans[number], strict=True):
                texts[first].append(_figure_text(piece.text))
                self.uncertain |= end - first > 1 and piece.figure
        return [clean(joined(pieces)).text for pieces in texts]


def _is_prose(pieces: list[_Piece]) -> bool:
    """A column of running text: long lines of like length."""
    if len(pieces) < 3 or median(columns(piece.text) for piece in pieces) < PROSE_LETTERS:
        return False
    widths = [piece.right - piece.left for piece in pieces]
    filled = sum(width > PROSE_FILLED * max(widths) for width in widths)
    return filled >= 0.6 * len(pieces)


def _lined_up(pieces: list[_Piece]) -> bool:
    """Cells of one column have their left, their right or their middle in common.

    Figures need not: signs and per cents stand out on either side of them.
    """
    if len(pieces) < 2 or 2 * sum(piece.figure for piece in pieces) >= len(pieces):
        return True
    em = median(piece.words[0].size for piece in pieces)
    for places in (
        [piece.left for piece in pieces],
        [piece.right for piece in pieces],
        [piece.middle for piece in pieces],
    ):
        usual = median(places)
        if sum(abs(place - usual) < 0.7 * em for place in places) >= 0.6 * len(pieces):
            return True
    return False
