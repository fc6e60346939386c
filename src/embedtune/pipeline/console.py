"""What a pipeline says while it works; the command line implements it."""

from collections.abc import Sequence
from typing import Protocol

from embedtune.files import visible
from embedtune.records import Counts, Progress, Reject, no_progress


class Console(Protocol):
    def say(self, text: str) -> None:
        """One message for the user."""
        ...

    def progress(self, what: str) -> Progress:
        """A counter of ``what``, with the time left."""
        ...


class Silent:
    """Says nothing: for the Python API and tests."""

    def say(self, text: str) -> None:
        pass

    def progress(self, what: str) -> Progress:
        return no_progress


def counts_line(counts: Counts) -> str:
    """The account of a stage as one line."""
    return (
        f"{counts.total:,} in = {counts.accepted:,} accepted + {counts.rejected:,} rejected + "
        f"{counts.duplicates:,} duplicates"
    )


def reject_lines(rejects: Sequence[Reject], limit: int = 20) -> list[str]:
    """Rejects as message lines, one each, the first ``limit`` of them."""
    lines = []
    for reject in rejects[:limit]:
        place = visible(reject.file, 200) + (f":{reject.line}" if reject.line else "")
        field = f"{reject.field}: " if reject.field else ""
        excerpt = f" ({visible(reject.excerpt)})" if reject.excerpt else ""
        lines.append(f"{place or reject.item or reject.stage}: {field}{reject.message}{excerpt}")
    if len(rejects) > limit:
        lines.append(f"… and {len(rejects) - limit:,} more in rejects.jsonl")
    return lines
