"""The verdict in words: did it help, can it be shipped, what next, and why."""

import re
from typing import Any

from embedtune.language import LANGUAGES
from embedtune.report.facts import LABELS, METRIC, ReportFacts
from embedtune.report.render import count, cut, percent, score, signed
from embedtune.report.texts import ENGLISH, Texts, teller
from embedtune.results import Difference, Flag, Verdict

NEXT = {"ship": 3, "ship-hybrid": 2, "do-not-ship": 3, "inconclusive": 2}  # sentences in texts
MEASURE = re.compile(r"\b[a-z]+@\d+\b")
FIRST = "hit@1"  # 1 where a right passage comes first


def all_flags(facts: ReportFacts) -> list[Flag]:
    """The verdict's flags and the others, each once, those that block shipping first."""
    flags = [*(facts.verdict.flags if facts.verdict else ()), *facts.flags]
    once = list({(flag.code, flag.language, flag.message): flag for flag in flags}.values())
    return sorted(once, key=lambda flag: not flag.blocks)


def verdict_words(facts: ReportFacts, texts: Texts = ENGLISH) -> dict[str, Any]:
    """``key, name, helped, plain, number, headline, reasons, next``.

    ``helped``: whether it is better, in a sentence; ``plain``: in how many questions the right
    passage comes first; ``number``: before and after with the interval. Empty where not known.
    """
    t = teller(texts)
    verdict = facts.verdict
    if verdict is None:
        return {
            "key": "none",
            "name": t("verdict.none.name"),
            "helped": "",
            "plain": "",
            "number": "",
            "headline": t("verdict.none"),
            "reasons": [],
            "next": [t("next.none.1")] if facts.missing else [],
        }
    key = verdict.verdict
    blocked = _blocked(verdict)
    base = verdict.differences.get("base")
    subject = t("subject.base" if verdict.candidate == verdict.base else "subject.tuned")
    worse_than_base = base is not None and base.high < 0
    better = cut(verdict.base if worse_than_base else verdict.best_rival, 80)
    return {
        "key": key,
        "name": t(f"verdict.{key}.name"),
        "helped": _helped(verdict, base, t),
        "plain": _plain(facts, t),
        "number": _number(facts, base, t),
        "headline": t(
            f"verdict.{key}.flags" if blocked else f"verdict.{key}", subject=subject, better=better
        ),
        "reasons": _reasons(verdict, texts),
        "next": [*_next(verdict, base, better, t), *_elsewhere(verdict, texts)],
    }


def flag_words(flag: Flag, texts: Texts) -> str:
    """What a flag says, in the language of ``texts`` where that has words for it."""
    key = f"flag.{flag.code}"
    words = texts.get(f"{key}.blocks" if flag.blocks else key) or texts.get(key)
    if not words:
        return flag.message
    values = {
        name: percent(number) if name == "share" else count(int(number))
        if float(number).is_integer() and name not in ("best", "base", "chance")
        else score(number)
        for name, number in flag.numbers.items()
    }  # fmt: skip
    values["language"] = language_words(flag.language, texts)
    try:
        return words.format(**values)
    except KeyError:  # of an earlier version, without that number
        return flag.message


def language_words(language: str, texts: Texts) -> str:
    """``zh`` as Chinese or 中文."""
    return texts.get(f"language.{language}") or LANGUAGES.get(language, language)


def _blocked(verdict: Verdict) -> bool:
    return verdict.verdict == "inconclusive" and any(flag.blocks for flag in verdict.flags)


def _helped(verdict: Verdict, base: Difference | None, t: Any) -> str:
    if verdict.candidate == verdict.base:
        return t("helped.untuned")
    if base is None:
        return ""
    if base.low > 0:
        return t("helped.yes")
    if base.high < 0:
        return t("helped.no")
    return t("helped.same" if base.low == base.high == 0 else "helped.open")


def _plain(facts: ReportFacts, t: Any) -> str:
    """In how many questions the right passage comes first, before and after."""
    pair = facts.pair
    if not pair or pair[0].name == pair[1].name:
        return ""
    before, after = (system.per_query.get(FIRST, {}) for system in pair)
    if not after or before.keys() != after.keys():
        return ""
    first = [sum(value >= 1 for value in values.values()) for values in (before, after)]
    return t("helped.plain", before=count(first[0]), after=count(first[1]), total=count(len(after)))


def _number(facts: ReportFacts, difference: Difference | None, t: Any) -> str:
    """Before and after in one sentence; empty when either is not known."""
    pair = facts.pair
    if not pair or not facts.verdict or difference is None or pair[0].name == pair[1].name:
        return ""
    # where a language was left out of the decision, its figures are not those of the table
    decided = facts.verdict.decided
    before, after = (decided.get(system.name, system.metrics.get(METRIC)) for system in pair)
    if before is None or after is None:
        return ""
    moved = round(after - before, 3)
    told = t(
        "number.rose" if moved > 0 else "number.fell" if moved < 0 else "number.same",
        before=score(before),
        after=score(after),
        mean=signed(difference.mean),
        low=signed(difference.low),
        high=signed(difference.high),
    )
    if difference.queries >= facts.asked:
        return told
    some = t("number.some", queries=count(difference.queries), total=count(facts.asked))
    return f"{told}{t('sentence.joined')}{some}"


def _next(verdict: Verdict, base: Difference | None, better: str, t: Any) -> list[str]:
    key, power = verdict.verdict, verdict.power
    steps = [t(f"next.{key}.{number}", better=better) for number in range(1, NEXT[key] + 1)]
    if key == "do-not-ship" and verdict.candidate == verdict.base:
        del steps[1]  # nothing was trained, so no question was lost
    if key == "inconclusive" and power and base and base.low <= 0 <= base.high:
        if power.queries is None or power.groups is None:
            steps[0] = t("next.inconclusive.never")
        elif power.queries > base.queries > 0:
            more = {"more": count(power.queries - base.queries), "all": count(power.queries)}
            groups = count(max(0, power.groups - base.groups))
            steps[0] = t("next.inconclusive.more", groups=groups, **more)
    if _blocked(verdict):
        steps.insert(0, t("next.inconclusive.flags.1"))
    return steps


def _elsewhere(verdict: Verdict, texts: Texts) -> list[str]:
    """What to do about languages that the verdict leaves out."""
    left_out = texts["list.joined"].join(
        language_words(flag.language, texts) for flag in verdict.not_for
    )
    shipped = verdict.verdict in ("ship", "ship-hybrid")
    return [teller(texts)("next.languages", languages=left_out)] if left_out and shipped else []


def _reasons(verdict: Verdict, texts: Texts) -> list[str]:
    """The reasons as the verdict has them, or from their codes in another language. What was added
    behind them has no code, and stays as it is."""
    told = [MEASURE.sub(lambda found: LABELS.get(found[0], found[0]), reason)
            for reason in verdict.reasons]  # fmt: skip
    if not any(key.startswith("reason.") for key in texts):
        return told
    messages = {_key(flag.message): flag_words(flag, texts) for flag in verdict.flags}
    languages = {name: language_words(code, texts) for code, name in LANGUAGES.items()}
    for place, (code, named) in enumerate(verdict.codes[: len(told)]):
        values = dict(named)
        if "message" in values:
            values["message"] = messages.get(_key(values["message"]), values["message"])
        if "language" in values:
            values["language"] = languages.get(values["language"], values["language"])
        if "flags" in values:
            blocking = [flag_words(flag, texts) for flag in verdict.flags if flag.blocks]
            values["flags"] = texts["list.joined"].join(blocking) or values["flags"]
        if "name" in values:
            values["name"] = texts.get(f"verdict.{values['name']}.name", values["name"])
        if "metric" in values:
            values["metric"] = LABELS.get(values["metric"], values["metric"])
        try:
            told[place] = texts[f"reason.{code}"].format(**values)
        except KeyError:  # a reason of another version
            continue
    return told


def _key(message: str) -> str:
    return re.sub(r"\W+", "", message).lower()
