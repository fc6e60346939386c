"""Two runs side by side: what differs in data, settings and results, for people and machines."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from embedtune.report.facts import LABELS
from embedtune.report.render import chance, count, cut, markdown, score, signed
from embedtune.report.texts import Texts, teller
from embedtune.results import Difference

WIDE = 160  # characters of a value


@dataclass(frozen=True, slots=True)
class Changed:
    """A setting or figure of the data that two runs do not share; None where one has it not."""

    name: str
    one: object
    other: object


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the figures of two runs are not comparable: ``versus.fault.CODE`` with its values."""

    code: str
    one: str = ""
    other: str = ""
    split: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """One system in both runs. ``role``: candidate, base or rival where it has one, else empty."""

    role: str
    names: tuple[str, str]
    one: Mapping[str, float]
    other: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Versus:
    """What differs. ``figures`` are there only where they are comparable, and ``difference`` is
    the candidate of the other run minus that of the one."""

    runs: tuple[str, str]
    settings: tuple[Changed, ...]
    data: tuple[Changed, ...]
    faults: tuple[Fault, ...]
    unjudged: tuple[str, ...]  # runs that have no results
    metric: str
    verdicts: tuple[str, str]
    figures: tuple[Figures, ...]
    difference: Difference | None

    def as_json(self) -> dict[str, Any]:
        """The difference as every command prints it."""
        return {**asdict(self), "difference": self.difference and self.difference.as_json()}

    def told(self, fault: Fault, texts: Texts) -> str:
        """A fault in words."""
        return teller(texts)(
            f"versus.fault.{fault.code}", one=cut(fault.one, 80), other=cut(fault.other, 80),
            split=texts.get(f"split.{fault.split}", cut(fault.split, 40)),
            a=self.runs[0], b=self.runs[1],
        )  # fmt: skip

    def text(self, texts: Texts) -> str:
        """All of it as Markdown."""
        t = teller(texts)
        one, other = self.runs
        lines = [f"# {markdown(t('versus', one=one, other=other))}"]
        for key, changed in (("data", self.data), ("settings", self.settings)):
            lines += ["", f"## {t(f'versus.{key}')}", ""]
            lines += _changes(changed, self.runs, t) if changed else [t("versus.nothing")]
        lines += ["", f"## {t('versus.results')}", ""]
        if self.unjudged:
            lines += [t("versus.unjudged", run=markdown(run)) for run in self.unjudged]
        elif self.faults:
            lines += [t("versus.refused"), ""]
            lines += [f"- {markdown(self.told(fault, texts))}" for fault in self.faults]
        else:
            lines += self._figures(texts)
        return "\n".join(lines)

    def _figures(self, texts: Texts) -> list[str]:
        t = teller(texts)
        metrics = [name for name in self.figures[0].one if name in self.figures[0].other]
        head = [t("system"), *(LABELS.get(name, name) for name in metrics)]
        rows = [[t("verdict"), *(texts.get(f"verdict.{name}.name", name)
                                 for name in self.verdicts)]]  # fmt: skip
        lines = [*_table(["", *self.runs], rows), "", *_head(head)]
        for own in self.figures:
            name = own.names[0] if own.names[0] == own.names[1] else " → ".join(own.names)
            role = f" ({t(f'role.{own.role}')})" if own.role else ""
            lines.append(
                _row([f"{name}{role}",
                      *(f"{score(own.one.get(m))} → {score(own.other.get(m))}" for m in metrics)])
            )  # fmt: skip
        if self.difference:
            found = self.difference
            lines += ["", t(
                "versus.candidates", one=markdown(self.runs[0]), other=markdown(self.runs[1]),
                metric=LABELS.get(self.metric, self.metric), mean=signed(found.mean),
                low=signed(found.low), high=signed(found.high), p=chance(found.p),
                queries=count(found.queries), groups=count(found.groups),
            )]  # fmt: skip
        return lines


def _changes(changed: tuple[Changed, ...], runs: tuple[str, str], t: Any) -> list[str]:
    head = _head([t("versus.field"), *runs])
    return [*head, *(_row([own.name, _shown(own.one), _shown(own.other)]) for own in changed)]


def _shown(value: object) -> str:
    return "–" if value is None else cut(value, WIDE)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [*_head(head), *map(_row, rows)]


def _head(cells: list[str]) -> list[str]:
    return [_row(cells), "|" + "---|" * len(cells)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(map(markdown, cells))} |"
