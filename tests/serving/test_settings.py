"""The page tells every setting with its default."""

import re
from pathlib import Path

from embedtune.serving.settings import ServerSettings

PAGE = Path(__file__).parents[2] / "docs" / "serve.md"


def test_every_setting_is_on_the_page_with_its_default():
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE.read_text("utf-8"), re.MULTILINE))
    assert list(rows) == list(ServerSettings.model_fields)
    for name, field in ServerSettings.model_fields.items():
        default = field.default
        shown = str(default).lower() if isinstance(default, bool) else default
        assert rows[name] == (f"{shown:g}" if isinstance(shown, float) else str(shown))
        assert field.description
