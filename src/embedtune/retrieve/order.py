"""One order for equal scores, everywhere: by a hash of the id, so that no position ever wins."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ranking = list[tuple[str, float]]  # (id, score), best first


def tie_breaker(id: str) -> int:
    """A number that orders ids among equal scores (smaller first); equal in every run."""
    return int.from_bytes(hashlib.blake2b(id.encode("utf-8"), digest_size=7).digest(), "big")


def tie_breakers(ids: Sequence[str]) -> npt.NDArray[np.int64]:
    """(n,) int64: the ``tie_breaker`` of each id."""
    return np.fromiter((tie_breaker(id) for id in ids), dtype=np.int64, count=len(ids))
