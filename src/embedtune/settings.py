"""The base of every settings class: frozen, unknown keys refused, each field described.

A settings class lives beside the function that reads it; `config.py` composes them.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Auto = Literal["auto"]
Share = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings. Values are validated once, at the edge, and trusted after that."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
