from embedtune.documents.plain import read_markdown


def markdown(text: str) -> tuple[str, list[tuple[int | None, str]]]:
    part = read_markdown(text.encode(), "replace")
    return part.text, part.notes


def test_front_matter_goes_into_meta() -> None:
    part = read_markdown(b"---\ntitle: The pump\ntags: [a]\n---\n# Heading\n\nWords.\n", "replace")
    assert (part.title, part.text) == ("The pump", "# Heading\n\nWords.\n")
    assert part.meta["front_matter"] == "title: The pump\ntags: [a]"


def test_front_matter_that_is_no_yaml_stays_and_is_noted() -> None:
    text = "---\ntitle: [unclosed\n---\nWords.\n"
    assert markdown(text) == (text, [(1, "the front matter is not a YAML mapping; kept as text")])


def test_a_rule_at_the_top_is_no_front_matter() -> None:
    text = "---\n\nWords under a rule.\n"
    assert markdown(text) == (text, [])


def test_an_unclosed_fence_is_noted_with_its_line() -> None:
    text = "Words.\n\n```python\nx = 1\n"
    assert markdown(text) == (text, [(3, "a code fence is never closed; read as text")])


def test_a_ragged_table_is_kept_and_noted_once() -> None:
    text = "| a | b |\n|---|---|\n| 1 | 2 |\n| 1 | 2 | 3 |\n| 1 |\n"
    assert markdown(text) == (text, [(4, "a table row of 3 cells under 2 columns; kept")])


def test_the_first_heading_is_the_title() -> None:
    assert read_markdown("Words\n\n# 水泵 #\n\n# Other".encode(), "replace").title == "水泵"
