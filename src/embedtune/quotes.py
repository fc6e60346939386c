"""Finding a quoted stretch again in the text it was taken from."""

import unicodedata
from functools import cache

SHORTEST = 4  # letters and digits; a shorter quote is only found verbatim


def skeleton(text: str) -> str:
    """The letters and digits of ``text``, without case, width and accents.

    Equal for texts that differ in white space, line breaks, punctuation or markup only.
    """
    return "".join(map(_letters, text))


def find_quote(quote: str, text: str) -> tuple[int, int] | None:
    """(start, end) of the first place in ``text`` of ``quote``, verbatim or by skeleton."""
    quote = quote.strip()
    if not quote:
        return None
    start = text.find(quote)
    if start >= 0:
        return start, start + len(quote)
    letters = skeleton(quote)
    if len(letters) < SHORTEST:
        return None
    held, places = _skeleton(text)
    start = held.find(letters)
    if start < 0:
        return None
    end = places[start + len(letters) - 1] + 1
    if not quote[-1].isalnum():  # its full stop belongs to it
        while end < len(text) and not text[end].isalnum() and not text[end].isspace():
            end += 1
    return places[start], end


def _skeleton(text: str) -> tuple[str, list[int]]:
    """The skeleton and, for each of its characters, the offset in ``text`` it came from."""
    parts = [_letters(character) for character in text]
    places = [place for place, part in enumerate(parts) for _ in part]
    return "".join(parts), places


@cache
def _letters(character: str) -> str:
    folded = unicodedata.normalize("NFKD", character).casefold()
    return "".join(part for part in folded if part.isalnum())
