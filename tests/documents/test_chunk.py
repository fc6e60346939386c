from pathlib import Path

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from embedtune.documents.chunk import Chunking, ChunkSettings, chunk_documents
from embedtune.documents.clean import useful_characters
from embedtune.embed.tokens import Tokens, WordTokens, load_tokens
from embedtune.errors import ConfigError
from embedtune.records import Document

WORDS = WordTokens()


def document(text: str, kind: str = "markdown", title: str = "", **rest: object) -> Document:
    return Document("d1", "a.md", title, text, kind, "en", **rest)  # type: ignore[arg-type]


def cut(text: str, kind: str = "markdown", title: str = "", **values: object) -> Chunking:
    return chunk_documents([document(text, kind, title)], WORDS, ChunkSettings(**values))


def assert_whole(text: str, result: Chunking, budget: int, tokens: Tokens = WORDS) -> None:
    """Every character is in a chunk, in a counted reject, or white space; budgets are kept."""
    covered = bytearray(len(text))
    for span in [chunk.span for chunk in result.chunks] + list(result.rejected):
        covered[span.start : span.end] = b"\x01" * span.length
    lost = [c for c, seen in zip(text, covered, strict=True) if not seen and not c.isspace()]
    assert not lost
    for chunk in result.chunks:
        assert chunk.text == text[chunk.start : chunk.end]
        assert tokens.count([chunk.embedded]) == [chunk.tokens]
        assert chunk.tokens <= budget
    assert len(result.rejected) == len(result.rejects)
    assert result.counts.total == len(result.chunks) + len(result.rejects)


# ---- settings


@pytest.mark.parametrize("values", [{"tokens": 32, "overlap": 32}, {"tokens": 16, "overlap": 64}])
def test_overlap_must_be_less_than_tokens(values: dict[str, int]) -> None:
    with pytest.raises(
        ValidationError, match=rf"overlap {values['overlap']} .* tokens {values['tokens']}"
    ):
        ChunkSettings(**values)


def test_zero_tokens_are_refused() -> None:
    with pytest.raises(ValidationError, match="tokens"):
        ChunkSettings(tokens=0)


@pytest.mark.parametrize(
    "prefix", ["header", "{title", "{titel}", "{title} {0}", "{title.__class__}"]
)
def test_an_unknown_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError, match="prefix"):
        ChunkSettings(prefix=prefix)


def test_auto_is_what_the_model_reads_up_to_256() -> None:
    assert ChunkSettings(tokens="auto").budget(WordTokens(128)) == 128
    assert ChunkSettings(tokens="auto").budget(WordTokens(8192)) == 256


def test_an_auto_budget_below_the_overlap_is_refused() -> None:
    with pytest.raises(ConfigError, match="16 tokens"):
        chunk_documents([], WordTokens(16), ChunkSettings(tokens="auto", overlap=20))


# ---- sections and titles

GUIDE = """# Pump guide

The pump moves water through the upper house and the lower house.

## Starting the pump

Open the valve before anything else, then press the green button once.

### In winter

Wait four minutes for the heater before the pump is started.

## 停机步骤

先关闭阀门，再按下红色按钮，最后检查压力表是否归零。
"""


def test_sections_are_not_mixed_and_carry_the_headings_above_them() -> None:
    result = cut(GUIDE)
    assert [chunk.section for chunk in result.chunks] == [
        ("Pump guide",),
        ("Pump guide", "Starting the pump"),
        ("Pump guide", "Starting the pump", "In winter"),
        ("Pump guide", "停机步骤"),
    ]
    # a heading that stands in the text is not repeated in the title
    assert [chunk.title for chunk in result.chunks] == [
        "",
        "Pump guide",
        "Pump guide > Starting the pump",
        "Pump guide",
    ]
    assert result.chunks[3].text.startswith("## 停机步骤")
    assert [chunk.language for chunk in result.chunks] == ["en", "en", "en", "zh"]
    assert_whole(GUIDE, result, 256)


@pytest.mark.parametrize(
    ("prefix", "title"),
    [
        ("none", ""),
        ("headings", "Pump guide"),
        ("title+headings", "House book > Pump guide"),
        ("{kind} of {title}: {path}", "markdown of House book: Pump guide"),
    ],
)
def test_the_prefix_follows_its_setting(prefix: str, title: str) -> None:
    result = cut(GUIDE, title="House book", prefix=prefix)
    assert result.chunks[1].title == title


def test_the_title_is_not_said_twice() -> None:
    assert cut(GUIDE, title="Pump guide", prefix="title+headings").chunks[1].title == "Pump guide"


def test_chunk_ids_depend_on_the_prefix() -> None:
    plain, titled = cut(GUIDE, prefix="none"), cut(GUIDE)
    assert plain.chunks[1].text == titled.chunks[1].text
    assert plain.chunks[1].id != titled.chunks[1].id
    assert cut(GUIDE) == titled


def test_a_long_prefix_is_shortened_to_a_third_of_the_budget() -> None:
    text = f"# {'outer ' * 30}\n\n## {'inner ' * 30}\n\n" + "Words of the body stand here. " * 20
    result = cut(text, tokens=30, overlap=0)
    for chunk in result.chunks:
        assert WORDS.count([chunk.title])[0] <= 10
    assert result.chunks[-1].title.startswith("inner")
    assert_whole(text, result, 30)


STATUTE = """第一章 总则

第一条 为了规范证券发行和交易行为，保护投资者的合法权益，制定本法。

第二条 在中华人民共和国境内，股票的发行和交易，适用本法。
政府债券的上市交易，适用本法；其他法律另有规定的，适用其规定。

第二章 证券发行

第一节 一般规定

第三条 公开发行证券，必须符合法律规定的条件，并依照第一条的规定注册。
"""


@pytest.mark.parametrize("kind", ["text", "pdf", "markdown"])
def test_an_article_of_a_statute_is_a_chunk_and_keeps_its_number(kind: str) -> None:
    result = cut(STATUTE, kind)
    assert [chunk.section for chunk in result.chunks] == [
        ("第一章 总则", "第一条"),
        ("第一章 总则", "第二条"),
        ("第二章 证券发行", "第一节 一般规定", "第三条"),
    ]
    assert result.chunks[0].text.startswith("第一章 总则\n\n第一条 为了")
    assert result.chunks[1].text.startswith("第二条 在")
    assert result.chunks[1].title == "第一章 总则"
    assert_whole(STATUTE, result, 256)


def test_the_rest_of_a_cut_article_has_its_number_in_the_title() -> None:
    result = cut(STATUTE, "text", tokens=48, overlap=0)
    rest = [chunk for chunk in result.chunks if chunk.section[-1] == "第二条"][1]
    assert rest.title == "第一章 总则 > 第二条"
    assert_whole(STATUTE, result, 48)


def test_an_article_named_inside_a_sentence_is_no_border() -> None:
    text = "第九条 依照本法的规定处理，具体办法由国务院\n第十二条规定的除外情形也适用。"
    assert len(cut(text, "text").chunks) == 1


def test_numbered_and_capital_headings_of_filings_open_sections() -> None:
    text = (
        "PART I\n\nITEM 1. BUSINESS\n\nWe design chips for many markets around the world.\n\n"
        "Item 1A. Risk Factors\n\nOur markets change quickly and competition is strong.\n\n"
        "COMPETITION\n\nThere are many competitors in all of our markets, as Item 1A tells.\n"
    )
    assert [chunk.section for chunk in cut(text, "pdf").chunks] == [
        ("PART I", "ITEM 1. BUSINESS"),
        ("PART I", "Item 1A. Risk Factors"),
        ("PART I", "Item 1A. Risk Factors", "COMPETITION"),
    ]


def test_a_table_of_contents_opens_no_sections() -> None:
    text = (
        "PART I\nItem 1. Business 4\nItem 2. Properties 33\n\nAll of the following is "
        "one long passage of text."
    )
    assert {chunk.section for chunk in cut(text, "text").chunks} == {()}


def test_headings_found_by_their_type_count() -> None:
    text = (
        "Our Company\n\nWe make robots that pick apples at night.\n\nOur People\n\n"
        "They are ninety in three towns.\n"
    )
    doc = document(text, "pdf", meta={"headings": "0:28 56:28"})
    result = chunk_documents([doc], WORDS, ChunkSettings())
    assert [chunk.section for chunk in result.chunks] == [("Our Company",), ("Our People",)]


def test_a_heading_in_a_code_fence_is_code() -> None:
    text = (
        "# Real\n\nSome words about the listing below, to be long enough.\n\n```\n# "
        "not a heading\nx = 1\n```\n"
    )
    [chunk] = cut(text).chunks
    assert chunk.section == ("Real",)


def test_an_unclosed_fence_hides_nothing() -> None:
    text = "```\nnever closed\n\n# Heading\n\nWords of this section follow after the heading.\n"
    result = cut(text)
    assert result.chunks[-1].section == ("Heading",)
    assert_whole(text, result, 256)


# ---- packing


def test_a_long_section_is_cut_at_sentences_with_overlap() -> None:
    sentences = [f"Sentence number {n} tells one more thing about the pump." for n in range(20)]
    text = " ".join(sentences)
    result = cut(text, tokens=40, overlap=12)
    assert len(result.chunks) > 4
    for before, after in zip(result.chunks, result.chunks[1:], strict=False):
        assert after.start < before.end  # one sentence of 11 tokens is repeated
        assert after.text.split(".")[0] + "." == before.text.split(". ")[-1]
    assert all(chunk.text.endswith("pump.") for chunk in result.chunks)
    assert_whole(text, result, 40)


def test_no_overlap_when_none_is_asked_for() -> None:
    text = "".join(f"这是关于水泵的第{n}个句子，它说明了一件事。" for n in range(30))
    result = cut(text, tokens=60, overlap=0)
    assert all(a.end <= b.start for a, b in zip(result.chunks, result.chunks[1:], strict=False))
    assert all(chunk.text.endswith("。") for chunk in result.chunks)
    assert_whole(text, result, 60)


def test_sections_never_overlap() -> None:
    result = cut(GUIDE * 3, tokens=24, overlap=8)
    for before, after in zip(result.chunks, result.chunks[1:], strict=False):
        if before.section != after.section:
            assert before.end <= after.start


def test_parts_of_a_section_are_of_like_size() -> None:
    text = " ".join(f"Here is short sentence number {n} of this text." for n in range(24))
    sizes = [chunk.tokens for chunk in cut(text, tokens=128, overlap=0).chunks]
    assert max(sizes) < 2 * min(sizes)


def test_abbreviations_end_no_sentence() -> None:
    text = (
        "Mr. Smith of Pump Inc. Ltd. met Dr. A. Jones at 5 p.m. in St. Ives. Then they "
        "left the town for good."
    )
    result = cut(text, tokens=36, overlap=0)
    assert result.chunks[-1].text == "Then they left the town for good." or len(result.chunks) == 1


def test_very_short_neighbours_are_merged() -> None:
    text = (
        "# FAQ\n\n## Open?\n\nYes.\n\n## Free?\n\nNo.\n\n## Where?\n\nIn the lower "
        "house beside the mill.\n"
    )
    result = cut(text)
    assert len(result.chunks) == 1
    assert_whole(text, result, 256)


def test_a_short_text_without_neighbours_is_rejected_and_counted() -> None:
    result = cut("Yes.")
    assert result.chunks == ()
    assert [(reject.code, reject.unusable) for reject in result.rejects] == [("too-short", False)]


def test_chinese_characters_count_twice() -> None:
    assert useful_characters("泵 12 ab，。") == 6


TABLE = "| Part | Price |\n| --- | --- |\n" + "".join(
    f"| valve {n} | {n} coins |\n" for n in range(40)
)


def test_a_table_that_fits_is_kept_whole() -> None:
    rows = "".join(TABLE.splitlines(keepends=True)[:6])
    text = f"## Prices\n\nThe prices of the spare parts are these.\n\n{rows}\nAnd so on.\n"
    result = cut(text)
    assert len(result.chunks) == 1
    assert rows.strip() in result.chunks[0].text


def test_a_table_over_the_budget_is_cut_at_rows_with_its_header_in_the_title() -> None:
    text = (
        f"## Prices\n\nThe prices of the spare parts are these.\n\n{TABLE}\n\nWords "
        "after the table, which are no part of it.\n"
    )
    result = cut(text, tokens=64, overlap=16)
    parts = [chunk for chunk in result.chunks if chunk.kind == "table"]
    assert len(parts) > 4
    for part in parts[1:]:
        assert part.title == "Prices Part | Price"
        assert all(row.startswith("|") and row.endswith("|") for row in part.text.split("\n"))
    assert "after the table" in result.chunks[-1].text
    assert "Part | Price" not in result.chunks[-1].title
    assert_whole(text, result, 64)


def test_code_that_fits_is_whole_and_other_code_is_cut_at_lines() -> None:
    short = "```python\n" + "".join(f"value_{n} = {n}\n" for n in range(8)) + "```"
    assert [chunk.kind for chunk in cut(short).chunks] == ["code"]
    long = "```python\n" + "".join(f"value_{n} = compute(number {n})\n" for n in range(80)) + "```"
    result = cut(long, tokens=64, overlap=0)
    assert all(chunk.text.endswith((")", "```")) for chunk in result.chunks)
    assert_whole(long, result, 64)


def test_pages_are_those_where_a_chunk_begins() -> None:
    text = "First page has these many words on it.\n\nSecond page has these other words."
    doc = document(text, "text", pages=((0, 1), (40, 2)))
    result = chunk_documents([doc], WORDS, ChunkSettings(tokens=12, overlap=0))
    assert [chunk.page for chunk in result.chunks] == [1, 2]


# ---- hostile text


@pytest.mark.parametrize("word", ["x", "水泵阀门管道压力表", "a9"])
def test_one_word_of_50_000_characters_is_cut(word: str) -> None:
    text = "Before it. " + (word * 50_000)[:50_000] + " After it."
    result = cut(text, tokens=128)
    assert result.counts.total > 5
    assert_whole(text, result, 128)


def test_one_sentence_of_20_000_tokens_is_cut() -> None:
    text = "word " * 20_000
    assert_whole(text, cut(text), 256)


@pytest.mark.parametrize(
    "text", ["   \n\t ", "\u200b\u200b\ufeff", "12\n\n13\n\n14", "--- *** ---", ""]
)
def test_a_document_without_letters_is_rejected(text: str) -> None:
    result = cut(text)
    assert result.chunks == ()
    assert [(reject.code, reject.unusable) for reject in result.rejects] == [("no-content", True)]


def test_grapheme_clusters_are_not_split() -> None:
    family, accent, flag = "👨‍👩‍👧‍👦", "e\u0301", "🇨🇳"
    text = "Some words. " + family * 300 + accent * 300 + flag * 300
    result = cut(text, tokens=40, overlap=0)
    clusters = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    for chunk in result.chunks:
        assert {chunk.start, chunk.end} <= clusters
    assert_whole(text, result, 40)


def test_a_lone_surrogate_rejects_the_document() -> None:
    result = cut("Words and half a character \ud83d in between.")
    assert [reject.code for reject in result.rejects] == ["bad-text"]


def test_the_same_text_many_times_is_kept_three_times() -> None:
    text = "# A\n\nThe very same words stand under each heading.\n\n" * 9
    result = cut(text)
    assert (len(result.chunks), result.counts.duplicates) == (3, 6)
    assert_whole(text, result, 256)


_PIECES = st.sampled_from(
    [
        *("# H\n", "## 标题\n", "### A long heading of many words\n", "===\n", "---\n"),
        *("第一章 总则\n", "第二条 公司应当遵守。\n", "ITEM 1. BUSINESS\n", "\n", "\n\n"),
        *("Words of a sentence. ", "另一句话，很长。", "Mr. A. ", "12 ", "- item\n", "《》", "·"),
        *("| a | b |\n", "| --- | --- |\n", "| 1 | 2 |\n", "```\n", "~~~\n", "x" * 300),
        *("👨‍👩‍👧", "e\u0301", "\u200b", " ", "\t", "\u3000"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(_PIECES | st.text(max_size=20), max_size=60),
    kind=st.sampled_from(["markdown", "text", "pdf"]),
    tokens=st.integers(8, 90),
    overlap=st.integers(0, 7),
    minimum=st.integers(0, 40),
    prefix=st.sampled_from(["none", "headings", "title+headings", "{kind} {path}"]),
)
def test_nothing_is_lost_and_budgets_hold(
    pieces: list[str], kind: str, tokens: int, overlap: int, minimum: int, prefix: str
) -> None:
    text = "".join(pieces).encode("utf-8", "replace").decode()
    sizes = {"tokens": tokens, "overlap": overlap, "min_characters": minimum}
    result = cut(text, kind, title="A title", prefix=prefix, **sizes)
    assert_whole(text, result, tokens)
    for chunk in result.chunks:
        assert useful_characters(chunk.text) >= minimum


@pytest.mark.model
def test_budgets_hold_with_a_real_tokenizer() -> None:
    tokens = load_tokens("sentence-transformers/all-MiniLM-L6-v2")
    text = GUIDE + STATUTE + TABLE + "antidisestablishmentarianism " * 400 + "超长" * 2000
    for budget in (32, 128, 256):
        result = chunk_documents([document(text)], tokens, ChunkSettings(tokens=budget, overlap=8))
        assert_whole(text, result, budget, tokens)


@pytest.mark.shared
def test_a_real_statute_gives_a_chunk_an_article() -> None:
    law = Path(__file__).resolve().parents[2] / "../shared/data/securities_law/law.md"
    text = law.read_text("utf-8")
    result = cut(text, tokens=512, overlap=32)
    assert_whole(text, result, 512)
    articles = {chunk.section[-1] for chunk in result.chunks if chunk.section[-1].endswith("条")}
    assert len(articles) == 226
