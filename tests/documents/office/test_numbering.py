"""Labels as Word shows them; expected values read off the standard's own rules."""

from lxml import etree

from embedtune.documents.office.numbering import BULLET, Numbering

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def xml(tag: str, inner: str) -> etree._Element:
    return etree.fromstring(f'<w:{tag} xmlns:w="{W}">{inner}</w:{tag}>')


def level(number: int, form: str, text: str, more: str = "", start: int = 1) -> str:
    return (
        f'<w:lvl w:ilvl="{number}"><w:start w:val="{start}"/><w:numFmt w:val="{form}"/>{more}'
        f'<w:lvlText w:val="{text}"/></w:lvl>'
    )


def definition(number: int, *levels: str) -> str:
    return f'<w:abstractNum w:abstractNumId="{number}">{"".join(levels)}</w:abstractNum>'


def use(number: int, of: int, more: str = "") -> str:
    return f'<w:num w:numId="{number}"><w:abstractNumId w:val="{of}"/>{more}</w:num>'


def item(number: int = 1, depth: int = 0, style: str = "") -> etree._Element:
    mark = f'<w:pStyle w:val="{style}"/>' if style else ""
    place = f'<w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="{number}"/></w:numPr>'
    return xml("p", f"<w:pPr>{mark}{place}</w:pPr>")


def labels(numbering: str, *items: etree._Element, styles: str = "") -> list[str | None]:
    counter = Numbering(xml("numbering", numbering), xml("styles", styles))
    found = [counter.label(paragraph) for paragraph in items]
    return [None if label is None else label[1].strip() for label in found]


def test_levels_count_on_and_start_again_below() -> None:
    outline = definition(0, level(0, "decimal", "%1."), level(1, "decimal", "%1.%2"),
                         level(2, "lowerLetter", "(%3)"))  # fmt: skip
    depths = [0, 1, 1, 2, 2, 1, 2, 0, 1]
    assert labels(outline + use(1, 0), *(item(depth=depth) for depth in depths)) == [
        "1.", "1.1", "1.2", "(a)", "(b)", "1.3", "(a)", "2.", "2.1"
    ]  # fmt: skip


def test_a_level_that_was_skipped_shows_its_start() -> None:
    outline = definition(0, level(0, "decimal", "%1"), level(1, "decimal", "%1.%2"))
    assert labels(outline + use(1, 0), item(depth=1)) == ["1.1"]


def test_two_uses_of_one_definition_count_together_unless_one_starts_over() -> None:
    start = '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="1"/></w:lvlOverride>'
    numbering = definition(0, level(0, "decimal", "%1")) + use(1, 0) + use(2, 0) + use(3, 0, start)
    items = [item(1), item(2), item(3), item(3), item(1)]
    assert labels(numbering, *items) == ["1", "2", "1", "2", "3"]


def test_a_use_may_change_a_level() -> None:
    change = f'<w:lvlOverride w:ilvl="0">{level(0, "upperRoman", "PART %1")}</w:lvlOverride>'
    assert labels(definition(0, level(0, "decimal", "%1")) + use(1, 0, change), item()) == [
        "PART I"
    ]


def test_legal_numbering_shows_every_level_in_digits() -> None:
    outline = definition(
        0, level(0, "chineseCounting", "第%1章"), level(1, "decimal", "%1.%2", "<w:isLgl/>")
    )
    assert labels(outline + use(1, 0), item(), item(depth=1)) == ["第一章", "1.1"]


def test_the_number_may_come_from_the_style_and_from_the_style_it_is_based_on() -> None:
    numbering = definition(
        0, level(0, "decimal", "%1", '<w:pStyle w:val="H1"/>'),
        level(1, "decimal", "%1.%2", '<w:pStyle w:val="H2"/>'),
    ) + use(1, 0)  # fmt: skip
    styles = (
        '<w:style w:styleId="H1"><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>'
        '<w:style w:styleId="H2"><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr></w:style>'
        '<w:style w:styleId="Own"><w:basedOn w:val="H1"/></w:style>'
    )

    def styled(name: str) -> etree._Element:
        return xml("p", f'<w:pPr><w:pStyle w:val="{name}"/></w:pPr>')

    items = [styled("H1"), styled("H2"), styled("Own"), item(0, style="H1"), styled("H2")]
    assert labels(numbering, *items, styles=styles) == ["1", "1.1", "2", None, "2.1"]


def test_a_definition_may_stand_for_a_numbering_style() -> None:
    numbering = (
        '<w:abstractNum w:abstractNumId="0"><w:numStyleLink w:val="Legal"/></w:abstractNum>'
        '<w:abstractNum w:abstractNumId="1"><w:styleLink w:val="Legal"/>'
        + level(0, "decimal", "§ %1")
        + "</w:abstractNum>"
    )
    assert labels(numbering + use(1, 0), item()) == ["§ 1"]


def test_bullets_and_levels_without_a_label() -> None:
    numbering = definition(0, level(0, "bullet", "•"), level(1, "none", "")) + use(1, 0)
    counter = Numbering(xml("numbering", numbering), None)
    assert counter.label(item()) == (0, BULLET)
    assert counter.label(item(depth=1)) == (1, " ")
    assert counter.label(item(9)) is None
    assert counter.label(xml("p", "")) is None


def test_numbers_are_written_as_their_format_says() -> None:
    written = {
        ("decimal", 7): "7", ("decimalZero", 7): "07", ("upperRoman", 1949): "MCMXLIX",
        ("lowerRoman", 4): "iv", ("upperLetter", 27): "AA", ("lowerLetter", 26): "z",
        ("ordinal", 11): "11th", ("ordinal", 22): "22nd", ("chineseCounting", 10): "十",
        ("chineseCounting", 12): "十二", ("chineseCounting", 20): "二十",
        ("chineseCounting", 105): "一百零五", ("chineseCounting", 110): "一百一十",
        ("chineseCountingThousand", 1001): "一千零一", ("japaneseCounting", 21): "二十一",
        ("chineseLegalSimplified", 32): "叁拾贰", ("ideographTraditional", 3): "丙",
        ("ideographZodiac", 12): "亥", ("decimalEnclosedCircle", 20): "⑳",
        ("decimalEnclosedCircle", 21): "㉑", ("decimalFullWidth", 15): "１５",
        ("ideographTraditional", 11): "11", ("unheardOf", 5): "5",
    }  # fmt: skip
    for (form, number), label in written.items():
        numbering = definition(0, level(0, form, "%1", start=number)) + use(1, 0)
        assert labels(numbering, item()) == [label], (form, number)
