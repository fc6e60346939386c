"""Where a text may be cut, and what its pieces cost in tokens."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from embedtune.embed.tokens import Tokens
from embedtune.sentences import stripped

LONGEST_TOKEN = 64  # characters; a longer "token" is an unreadable run that is cut all the same
WINDOW = 20_000  # characters whose tokens are asked for at once

_GOOD_CUT = re.compile(r"[，、,;；:：)）\]】]|\s")
CELL_END = re.compile(r"(?<!\\)\|")  # of a row of a Markdown table


def rows(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Spans of the lines, without the white space around them."""
    while start < end:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        if bare := stripped(text, start, stop):
            yield bare
        start = stop + 1


class Costs:
    """Token ends of a stretch of text; a run without tokens, or one overlong token, counts one
    for every 64 characters, so that nothing unreadable hides in a chunk."""

    def __init__(self, tokens: Tokens, text: str, start: int, end: int) -> None:
        self.text = text
        self.ends: list[int] = []
        last = start
        for begin in range(start, end, WINDOW):
            # a token cut at a window's border counts twice, which is on the safe side
            for _, stop in tokens.offsets(text[begin : min(begin + WINDOW, end)]):
                self._add(last, begin + stop)
                last = begin + stop
        if end - last > LONGEST_TOKEN:
            self._add(last, end)

    def _add(self, last: int, stop: int) -> None:
        self.ends += range(last + LONGEST_TOKEN, stop, LONGEST_TOKEN)
        self.ends.append(stop)

    @property
    def total(self) -> int:
        return len(self.ends)

    def between(self, start: int, end: int) -> int:
        return bisect_left(self.ends, end + 1) - bisect_right(self.ends, start)

    def cut(
        self, start: int, end: int, limit: int, *, first: re.Pattern[str] | None = None
    ) -> Iterator[tuple[int, int]]:
        """The stretch in pieces of at most ``limit`` tokens, never inside a grapheme cluster.

        Pieces end where the last two thirds of one fit ``first``, else at commas or white space in
        the last third.
        """
        if self.between(start, end) <= limit:
            yield start, end
            return
        import regex

        borders = [start + match.end() for match in regex.finditer(r"\X", self.text[start:end])]
        while start < end:
            index = bisect_right(self.ends, start) + limit
            stop = (
                end
                if index > len(self.ends) or self.ends[index - 1] >= end
                else self.ends[index - 1]
            )
            if stop < end:
                third = (stop - start) // 3
                for pattern, least in ((first, third), (_GOOD_CUT, 2 * third)):
                    found = pattern.finditer(self.text, start + least, stop) if pattern else ()
                    if good := [match.end() for match in found]:
                        stop = good[-1]
                        break
                at = bisect_right(borders, stop) - 1
                if at < 0 or borders[at] <= start:
                    at = bisect_right(borders, start)
                stop = borders[at]
            if bare := stripped(self.text, start, stop):
                yield bare
            start = stop
