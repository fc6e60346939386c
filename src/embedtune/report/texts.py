"""The sentences of the report and the model card, by language.

A further language is a further table with the same keys. What English has from elsewhere (the
verdict's reasons, the flags, the audit's findings) another language says under ``reason.CODE``,
``flag.CODE``, ``finding.CODE`` and ``finding.CODE.do``.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import Field

from embedtune.report.texts_en import ENGLISH
from embedtune.report.texts_zh import CHINESE
from embedtune.settings import Settings

Texts = Mapping[str, str]
LANGUAGES: Mapping[str, Texts] = {"en": ENGLISH, "zh": CHINESE}


def teller(texts: Texts) -> Callable[..., str]:
    """``t("key", name=value)``: the sentence under ``key`` with its values filled in."""

    def tell(key: str, /, **values: object) -> str:
        return texts[key].format(**values)

    return tell


class ReportSettings(Settings):
    """How the report is written."""

    language: Literal["en", "zh"] = Field("en", description="Language of the report: en or zh.")
    license: str = Field(
        "",
        max_length=100,
        description="Licence of the tuned model for its card, e.g. apache-2.0; empty: the one that "
        "the base's card names.",
    )
