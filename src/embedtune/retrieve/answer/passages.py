"""Which of the passages found are shown to the language model, and how much of them."""

import re
from collections.abc import Sequence

from embedtune.language import HAN
from embedtune.retrieve.answer import Passage
from embedtune.retrieve.index import Found
from embedtune.similar import normalise

FRAME = 40  # tokens around a passage: its marks and its place
LEAST = 40  # tokens; of a passage that has to be cut, at least so much must fit
PIECE = re.compile(r"[^\W\d_]{1,9}|\d{1,2}|[^\w\s]")
WIDE = re.compile(f"[{HAN}\u3040-\u30ff\uac00-\ud7a3]")
END = re.compile(r"[。！？!?]|[.;；](?=\s)|\n")


def count_tokens(text: str) -> int:
    """About the tokens of ``text``, rather too many: pieces of up to 9 letters or 2 digits, each
    sign, and each Chinese character."""
    return len(WIDE.findall(text)) + len(PIECE.findall(WIDE.sub(" ", text)))


def choose_passages(found: Sequence[Found], budget: int, most: int) -> tuple[Passage, ...]:
    """The best ones first, as many as fit into ``budget`` tokens, at most ``most``.

    One whose text stands whole in a better one is left out, but for case and blanks; not one that
    differs in a word or a number, which may be the answer. The first that does not fit is cut
    behind a sentence; the very best one is never left out for its length.
    """
    chosen: list[Passage] = []
    seen: list[str] = []
    for hit in found:
        if len(chosen) == most:
            break
        text = hit.chunk.embedded
        plain = normalise(text)
        if not plain or any(plain in other for other in seen):
            continue
        needed = count_tokens(text) + FRAME
        whole = needed <= budget
        if not whole:
            if chosen and budget < FRAME + LEAST:
                break
            text = cut(text, max(1, budget - FRAME))
        chosen.append(Passage(len(chosen) + 1, hit.chunk, hit.score, text))
        seen.append(plain)
        if not whole:
            break
        budget -= needed
    return tuple(chosen)


def cut(text: str, tokens: int) -> str:
    """The beginning of ``text`` of about that many tokens, up to a sentence's end where one lies
    in its second half."""
    places = [match.end() for match in re.finditer(f"{WIDE.pattern}|{PIECE.pattern}", text)]
    if len(places) <= tokens:
        return text
    part = text[: places[tokens - 1]]
    ends = [match.end() for match in END.finditer(part) if match.end() > len(part) / 2]
    return part[: ends[-1]].rstrip() if ends else part.rstrip() + " …"
