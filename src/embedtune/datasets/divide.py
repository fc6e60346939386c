"""Rows that come without splits: whole families of alike texts to train, dev or test.

For scored pairs and labelled texts. Pairs and triplets are divided as retrieval data is (see
``split``), by passage; here a row belongs to no passage.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from embedtune.datasets.assign import NAMES, SplitSettings, draw_order, fill_parts, share_of
from embedtune.datasets.formats import LabelledRow, ScoredRow
from embedtune.datasets.parts import WHOLE
from embedtune.errors import ConfigError
from embedtune.language import language_of
from embedtune.similar import components, near_duplicates, normalise

Row = ScoredRow | LabelledRow
LARGEST = 0.30  # share of the rows one family may hold; else only equal texts are kept together


def divide_rows(
    rows: Mapping[str, Sequence[Row]], settings: SplitSettings, notes: list[str]
) -> dict[str, list[Row]]:
    """Splits with a train, a dev and a test part; what is missing is cut out of train, or of all.

    Rows that share a text, or hold near-duplicates, stay together. Each label (each fifth of the
    scale, for scores) and language is spread over the parts by its share. Which family goes where
    follows from the seed and its first text, not from the order of the rows. With too few rows
    for three parts they are left as they came.
    """
    parts = {name: list(own) for name, own in rows.items()}
    pool = "train" if "train" in parts else WHOLE
    missing = [name for name in NAMES if name != "train" and name not in parts]
    if not missing or pool not in parts:
        return parts
    if any(not isinstance(getattr(settings, name), float | None) for name in NAMES):
        raise ConfigError("split: rows have no documents to name; give shares for the parts")
    own = parts.pop(pool)
    families = _families(own, notes)
    sizes = Counter(families)
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for row, family in zip(own, families, strict=True):
        kinds[family][_kind(row)] += 1
    by_kind: dict[str, list[str]] = defaultdict(list)
    for family, found in kinds.items():
        by_kind[max(sorted(found), key=found.__getitem__)].append(family)
    for alike in by_kind.values():
        alike.sort(key=lambda family: draw_order(settings.seed, family))
    wanted = {
        name: share_of(name, len(own), settings) for name in ("test", "dev") if name in missing
    }
    part_of = fill_parts(by_kind, sizes, wanted)
    made: dict[str, list[Row]] = {name: [] for name in ("train", *missing)}
    for row, family in zip(own, families, strict=True):
        made[part_of[family]].append(row)
    if not all(made.values()):
        notes.append(f"{len(own)} rows are too few to be divided into train, dev and test")
        return {**parts, pool: own}
    counts = ", ".join(f"{len(part)} {name}" for name, part in made.items())
    notes.append(f"{' and '.join(missing)} cut by the rows, alike ones together: {counts}")
    return {**made, **parts}


def _families(rows: Sequence[Row], notes: list[str]) -> list[str]:
    """For each row the first text, in the order of the alphabet, of those it is alike to."""
    texts = sorted({text for row in rows for text in _texts(row)})
    place = {text: number for number, text in enumerate(texts)}
    shared = [
        (place[first], place[text]) for row in rows for first, *others in [_texts(row)]
        for text in others
    ]  # fmt: skip
    families = components(len(texts), [*shared, *near_duplicates(texts)])
    found = [texts[families[place[_texts(row)[0]]]] for row in rows]
    largest = Counter(found).most_common(1)[0][1]
    if largest > max(1, LARGEST * len(rows)):
        notes.append(
            f"{largest} of {len(rows)} rows are joined by near-duplicates; only equal texts are "
            "kept in one part"
        )
        families = components(len(texts), shared)
        found = [texts[families[place[_texts(row)[0]]]] for row in rows]
    return found


def _texts(row: Row) -> tuple[str, ...]:
    if isinstance(row, LabelledRow):
        return (normalise(row.text),)
    return normalise(row.sentence1), normalise(row.sentence2)


def _kind(row: Row) -> str:
    if isinstance(row, LabelledRow):
        return f"{row.label}/{language_of(row.text)}"
    return f"{round(row.score * 5)}/{language_of(row.sentence1)}"
