from embedtune.queries import QuerySettings, extract_queries
from embedtune.queries.extractive import inverse_frequencies, terms_of
from embedtune.records import Chunk, Document

ENGLISH = (
    "The welcome note is short. A loper weighs 212 kilograms and climbs slopes of thirty percent. "
    "Grease the knuckle bearings every fortnight with graphite paste. It is so."
)
CHINESE = (
    "欢迎使用本设备。每台采摘机器人重二百一十二公斤，可爬百分之三十的坡。"
    "轴承应当每两周用石墨脂润滑一次。"
)


def chunk(name, text, language, section=()):
    return Chunk(f"c-{name}", f"d-{name}", 10, 10 + len(text), "", text, section, language=language)


CHUNKS = [
    chunk("en", ENGLISH, "en", ("Manual", "Maintenance")),
    chunk("zh", CHINESE, "zh", ("手册", "保养")),
    chunk("tiny", "See page 7.", "en"),
]
DOCUMENTS = [
    Document(c.document, "f", "Title", " " * 10 + c.text, "md", c.language) for c in CHUNKS
]


def test_each_query_is_made_of_its_evidence_and_heading():
    generation = extract_queries(CHUNKS, DOCUMENTS, QuerySettings())
    texts = {document.id: document.text for document in DOCUMENTS}
    assert {query.chunk for query in generation.queries} == {"c-en", "c-zh"}
    for query in generation.queries:
        evidence = texts[query.document][query.evidence.start : query.evidence.end]
        assert evidence[-1] in ".。"
        assert evidence == evidence.strip()
        for word in query.text.split():
            assert word.lower() in evidence.lower() or word in ("Maintenance", "保养")
        assert (query.style, query.origin) == ("extractive", "extractive")
        assert query.language == ("zh" if query.chunk == "c-zh" else "en")


def test_sentences_with_rare_words_are_preferred():
    generation = extract_queries(CHUNKS[:1], DOCUMENTS, QuerySettings())
    evidence = {ENGLISH[q.evidence.start - 10 : q.evidence.end - 10] for q in generation.queries}
    assert evidence == {
        "A loper weighs 212 kilograms and climbs slopes of thirty percent.",
        "Grease the knuckle bearings every fortnight with graphite paste.",
    }


def test_the_same_input_gives_the_same_queries():
    one = extract_queries(CHUNKS, DOCUMENTS, QuerySettings(per_chunk=3))
    other = extract_queries(CHUNKS, DOCUMENTS, QuerySettings(per_chunk=3))
    assert one == other


def test_a_chunk_without_content_is_counted():
    generation = extract_queries(CHUNKS, DOCUMENTS, QuerySettings())
    assert [(reject.code, reject.item) for reject in generation.rejects] == [
        ("too-small", "c-tiny")
    ]
    assert not generation.rejects[0].unusable
    assert generation.counts.total == len(generation.queries) + 1


def test_no_query_copies_eight_words_or_twelve_characters():
    chunks = [chunk(str(n), f"{ENGLISH} Part {n}.", "en") for n in range(3)]
    for query in extract_queries([*chunks, CHUNKS[1]], [], QuerySettings(per_chunk=3)).queries:
        source = CHINESE if query.language == "zh" else ENGLISH
        words = query.text.split()
        runs = [" ".join(words[start : start + 8]) for start in range(len(words) - 7)]
        assert not any(run in source.lower() for run in runs)
        pieces = [query.text[start : start + 12] for start in range(len(query.text) - 11)]
        if query.language == "zh":
            assert not any(piece in source for piece in pieces)


def test_terms_leave_out_function_words_in_both_languages():
    assert terms_of("The fee is for the boots") == ["fee", "boots"]
    assert "的" not in terms_of("申请人的证件")
    assert "证件" in terms_of("申请人的证件")


def test_rare_terms_weigh_more():
    idf = inverse_frequencies(["boots fee", "boots", "boots"])
    assert idf["fee"] > idf["boots"] == 1.0  # log(4 / 4) + 1


def test_a_table_of_contents_gives_no_queries():
    text = "Scope of it ..... 4\nFees due ..... 9\nRepairs done ..... 15\nReturns made ..... 22"
    generation = extract_queries([chunk("toc", text, "en")], [], QuerySettings())
    assert generation.queries == ()
    assert [reject.code for reject in generation.rejects] == ["contents"]
