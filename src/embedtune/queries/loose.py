"""JSON with the slips language models make, read where only one reading is possible.

Trailing commas, missing ones between objects, bare keys, Python's constants, line breaks and
unescaped quotes within strings; single, typographic and full-width quotes, and full-width
brackets, colons and commas, as delimiters.
"""

import re
from typing import Any

DEEPEST = 50  # brackets in brackets

OBJECT, LIST = "{｛", "[［"
ENDS = {"object": "}｝", "list": "]］"}
COMMA, COLON = ",，、", ":："
# a string begins with one of these and ends with one of those
QUOTES = {'"': '"', "'": "'", "“": '”“"', "”": '”"', "‘": "’‘'", "’": "’'", "＂": "＂", "「": "」"}
WORD = re.compile(r"[^\W\d]\w*")
NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
# what may follow the comma after a string: another string, value or bracket, a key, or the end
NEXT = re.compile(
    rf"\s*(?:[{re.escape(''.join(QUOTES))}{{｛\[［}}｝\]］\d-]|\w+\s*[:：]|$"
    r"|(?:true|false|null|none)\s*[,，、}｝\]］])",
    re.IGNORECASE,
)


class Broken(ValueError):
    """No JSON. ``begun`` when a part of it was read before that showed."""

    def __init__(self, begun: bool) -> None:
        super().__init__("not JSON")
        self.begun = begun


class BrokenOff(ValueError):
    """JSON as far as it goes, but the text ends before it does."""


def read_value(text: str, start: int) -> tuple[Any, int]:
    """The object or list that begins at ``start``, and the offset behind it.

    Raises:
        Broken: It is none.
        BrokenOff: The text ends within it.
    """
    reader = _Reader(text, start)
    return reader.value(0), reader.place


class _Reader:
    def __init__(self, text: str, start: int) -> None:
        self.text = text
        self.place = start
        self.begun = False

    def value(self, depth: int) -> Any:
        if depth > DEEPEST:
            raise BrokenOff
        sign = self._peek()
        if sign in OBJECT:
            return self._object(depth)
        if sign in LIST:
            return self._list(depth)
        if sign in QUOTES:
            return self._string(key=False)
        if match := NUMBER.match(self.text, self.place):
            self.place = match.end()
            return float(match[0]) if len(match[0]) > 18 or "." in match[0] else int(match[0])
        match = WORD.match(self.text, self.place)
        if match is None or match[0].lower() not in CONSTANTS:
            raise Broken(self.begun)
        self.place = match.end()
        return CONSTANTS[match[0].lower()]

    def _object(self, depth: int) -> dict[str, Any]:
        self.place += 1
        found: dict[str, Any] = {}
        while not self._ends("object"):
            if self._peek() in QUOTES:
                key = self._string(key=True)
                self.begun = True
            elif match := WORD.match(self.text, self.place):
                key, self.place = match[0], match.end()
            else:
                raise Broken(self.begun)
            if self._peek() not in COLON:
                raise Broken(self.begun)
            self.place += 1
            if key in found:
                raise Broken(self.begun)  # which one was meant?
            found[key] = self.value(depth + 1)
            self.begun = True
            self._comma()
        return found

    def _list(self, depth: int) -> list[Any]:
        self.place += 1
        found: list[Any] = []
        while not self._ends("list"):
            found.append(self.value(depth + 1))
            self.begun = True
            self._comma()
        return found

    def _string(self, *, key: bool) -> str:
        closers = QUOTES[self.text[self.place]]
        parts: list[str] = []
        self.place += 1
        while self.place < len(self.text):
            sign = self.text[self.place]
            self.place += 1
            if sign in closers and self._closes(key):
                # halves of one character, each escaped by itself
                return "".join(parts).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            parts.append(self._escaped() if sign == "\\" else sign)
        if self.text.rstrip().rstrip("`").rstrip()[-1:] in tuple("}｝]］"):
            raise Broken(self.begun)  # the end is there; what is missing is a quote
        raise BrokenOff

    def _closes(self, key: bool) -> bool:
        """Whether the quote just read ends its string: quotes within it go unescaped too."""
        after = self._after_space()
        sign = self.text[after : after + 1]
        if not sign:
            return True
        if key:
            return sign in COLON
        if sign in COLON:
            raise Broken(self.begun)  # a key in the middle of a value: its quote is missing
        if sign in COMMA:
            return bool(NEXT.match(self.text, after + 1))
        return sign in "}｝]］"

    def _escaped(self) -> str:
        sign = self.text[self.place : self.place + 1]
        self.place += 1
        if sign == "u" and re.fullmatch(
            "[0-9a-fA-F]{4}", code := self.text[self.place : self.place + 4]
        ):
            self.place += 4
            return chr(int(code, 16))
        if sign in ESCAPES:
            return ESCAPES[sign]
        return sign if sign in "\"'\\/" else f"\\{sign}"

    def _peek(self) -> str:
        self.place = self._after_space()
        if self.place == len(self.text):
            raise BrokenOff
        return self.text[self.place]

    def _after_space(self) -> int:
        place = self.place
        while place < len(self.text) and self.text[place].isspace():
            place += 1
        return place

    def _ends(self, kind: str) -> bool:
        if self._peek() in ENDS[kind]:
            self.place += 1
            return True
        return False

    def _comma(self) -> None:
        """Steps over a comma; without one only a bracket may follow."""
        sign = self._peek()
        if sign in COMMA:
            self.place += 1
        elif sign not in "}｝]］{｛":
            raise Broken(self.begun)
