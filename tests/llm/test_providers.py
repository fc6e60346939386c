"""Each configuration on the page about providers opens what it says it opens."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from embedtune.config import load_config
from embedtune.endpoint import check_base_url
from embedtune.llm.recorded import LLMSettings, open_chat

PAGE = Path(__file__).resolve().parents[2] / "docs" / "providers.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
SETTINGS = [LLMSettings(**yaml.safe_load(block)["llm"]) for block in BLOCKS]


@pytest.mark.parametrize(
    "settings", [s for s in SETTINGS if s.provider == "openai"], ids=lambda s: s.model
)
def test_the_configuration_asks_that_address_with_that_key(settings, monkeypatch):
    variable = "OPENAI_API_KEY" if settings.api_key_env == "auto" else settings.api_key_env
    address = settings.base_url or "https://api.openai.com/v1"
    if urlsplit(address).hostname != "localhost":
        monkeypatch.setenv(variable, "the-key")
    endpoint = open_chat(settings).endpoint
    assert endpoint.base_url == check_base_url(address)
    assert endpoint.key == ("none" if endpoint.local else "the-key")


def test_fields_of_a_configuration_are_what_json_means_by_them():
    """Scalars of a configuration are text until somebody knows their type."""
    given = "llm.extra={a: false, b: {c: 20, d: 1.5, e: off}, f: '007', g: [true], h: '\"20\"'}"
    found = load_config(None, [given]).llm.extra
    assert found == {
        "a": False, "b": {"c": 20, "d": 1.5, "e": "off"}, "f": "007", "g": [True], "h": "20"
    }  # fmt: skip


def test_the_page_shows_each_provider_and_mode():
    assert {settings.provider for settings in SETTINGS} == {"openai", "local"}
    assert {settings.mode for settings in SETTINGS} == {"live", "batch"}
    hosts = {urlsplit(s.base_url).hostname for s in SETTINGS if s.base_url}
    assert len(hosts) >= 6
