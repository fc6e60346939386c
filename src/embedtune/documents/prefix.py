"""What is put before the text of a chunk, so that it can be understood alone."""

import re

from embedtune.embed.tokens import Tokens
from embedtune.records import Document

PREFIXES = ("none", "headings", "title+headings")
FIELDS = ("title", "path", "kind")
JOINT = " > "  # between the headings of a path


class Prefixes:
    """The prefixes of one document's chunks.

    Args:
        style: One of ``PREFIXES``, or a template with ``FIELDS``.
        most: Tokens a prefix may have, special ones not counted.
        special: Special tokens the model adds to every text.
    """

    def __init__(
        self, document: Document, tokens: Tokens, style: str, most: int, special: int
    ) -> None:
        self._document = document
        self._tokens = tokens
        self._style = style
        self._most = most
        self._special = special
        self._known: dict[tuple[tuple[str, ...], str], tuple[str, int]] = {}

    def of(self, labels: tuple[str, ...], header: str) -> tuple[str, int]:
        """The prefix under these headings, and its tokens with the special ones.

        ``header`` is that of a table which goes on in this chunk, or empty. Where it is too long,
        outer headings give way first, then the end of what is left.
        """
        key = (labels, header)
        if key not in self._known:
            limit = self._most + self._special
            text = self._compose(labels, header)
            while len(labels) > 1 and self._tokens.count([text])[0] > limit:
                labels = labels[1:]
                text = self._compose(labels, header)
            [cost] = self._tokens.count([text])
            most = self._most
            while cost > limit:
                ends = [end for _, end in self._tokens.offsets(text)][:most]
                text = text[: ends[-1]].rstrip() if ends else ""
                [cost] = self._tokens.count([text])
                most -= 1
            self._known[key] = (text, cost)
        return self._known[key]

    def _compose(self, labels: tuple[str, ...], header: str) -> str:
        style = self._style
        title = " ".join(self._document.title.split())
        path = JOINT.join(" ".join(label.split()) for label in labels)
        if style == "none":
            text = ""
        elif style == "headings":
            text = path
        elif style == "title+headings":
            same = bool(labels) and " ".join(labels[0].split()) == title
            text = path if same or not title else JOINT.join(filter(None, (title, path)))
        else:
            values = {"title": title, "path": path, "kind": self._document.kind}
            text = re.sub(r"\{(\w+)\}", lambda match: values[match[1]], style)
        return " ".join(filter(None, (text.strip(), header)))
