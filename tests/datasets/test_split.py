"""Splits: nothing on two sides, whatever comes in; sizes, reasons and what is asked for."""

import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from embedtune.datasets.audit import audit
from embedtune.datasets.given import check_given_splits, complete_splits, nothing_left
from embedtune.datasets.source import Source
from embedtune.datasets.split import SplitSettings, leaks, split_queries
from embedtune.errors import ConfigError, IntegrityError, NothingUsable
from embedtune.records import Chunk, Counts, Query, RetrievalSet, Span
from embedtune.relevance import judge
from embedtune.similar import near_duplicates

AUTO = SplitSettings()
NAMES = ("train", "dev", "test")


def corpus(documents: int, chunks: int = 4, questions: int = 1, language: str = "en"):
    """Documents of chunks of 100 characters without overlap; each chunk has its questions."""
    made, asked = [], []
    for d in range(documents):
        for c in range(chunks):
            name = f"{language}-{d:03d}-{c:02d}"
            document = f"{language}-{d:03d}"
            text = f"passage {name} " + str(random.Random(name).getrandbits(200))
            made.append(
                Chunk(name, document, 100 * c, 100 * c + 100, "", text, (f"part {c // 2}",),
                      source=f"{document}.md")
            )  # fmt: skip
            for n in range(questions):
                evidence = Span(document, 100 * c + 10, 100 * c + 60)
                asked.append(Query(f"q-{name}-{n}", f"question {n} of {name}", language,
                                   document=document, evidence=evidence))  # fmt: skip
    return made, asked


def divided(chunks, queries, options=AUTO, pairs=(), qrels=None):
    qrels = qrels or judge(queries, chunks, pairs)
    return split_queries(chunks, queries, qrels, pairs, options)


def sizes(split):
    return {name: len(part) for name, part in split.qrels.items()}


def sides(split, chunks):
    """Document -> the parts in which it is judged."""
    found = defaultdict(set)
    document = {chunk.id: chunk.document for chunk in chunks}
    for name, part in split.qrels.items():
        for grades in part.values():
            for chunk in grades:
                found[document[chunk]].add(name)
    return found


def reasons(split):
    return Counter(reject.code for reject in split.dropped)


# ---- documents


def test_no_document_is_in_two_parts():
    chunks, queries = corpus(100, questions=2)
    split = divided(chunks, queries)
    assert split.by == "document"
    assert not split.optimistic
    assert all(len(found) == 1 for found in sides(split, chunks).values())
    # 800 queries, 8 a document: 100 in test would be 13 groups, so 160; dev 10 %
    assert sizes(split) == {"train": 560, "dev": 80, "test": 160}
    assert split.counts.total == split.counts.accepted == 800


@pytest.mark.parametrize(
    ("documents", "test", "dev"),
    # 25 documents of 4 queries: 100 queries, 30 % and 15 %; of 50: 200, 30 % and 15 %;
    # of 150: 600, 100 queries and 10 %; of 400: 1600, 10 % and 10 %
    [(25, 30, 15), (50, 60, 30), (150, 100, 60), (400, 160, 160)],
)
def test_sizes_follow_the_number_of_queries(documents, test, dev):
    split = divided(*corpus(documents))
    assert abs(len(split.qrels["test"]) - test) <= 4
    assert abs(len(split.qrels["dev"]) - dev) <= 4


def test_test_is_raised_until_it_holds_20_groups():
    # 80 documents of 20 queries: 10 % would be 8 groups
    split = divided(*corpus(80, chunks=20))
    groups = {split.group_of_query[query] for query in split.qrels["test"]}
    assert len(groups) == 20
    assert "test raised from 10% to 25%" in " ".join(split.notes)


def test_the_order_of_the_input_does_not_matter():
    chunks, queries = corpus(30, questions=2)
    first = divided(chunks, queries)
    rng = random.Random(1)
    for _ in range(3):
        rng.shuffle(chunks)
        rng.shuffle(queries)
        again = divided(chunks, queries)
        assert {n: set(part) for n, part in again.qrels.items()} == {
            n: set(part) for n, part in first.qrels.items()
        }


def test_another_seed_is_another_split():
    data = corpus(40)
    assert divided(*data).qrels != divided(*data, SplitSettings(seed=1)).qrels


def test_a_further_document_moves_few_of_the_others():
    chunks, queries = corpus(101)
    old = divided(chunks[:-4], queries[:-4])
    new = divided(chunks, queries)
    part = {query: name for name, own in new.qrels.items() for query in own}
    moved = [q for name, own in old.qrels.items() for q in own if part.get(q) != name]
    assert len(moved) <= 16


def test_languages_are_spread_by_their_share():
    english, chinese = corpus(60), corpus(30, language="zh")
    split = divided(english[0] + chinese[0], english[1] + chinese[1])
    language = {query.id: query.language for query in english[1] + chinese[1]}
    for name, expected in (("test", 0.28), ("dev", 0.14)):
        for tongue, total in (("en", 240), ("zh", 120)):
            share = sum(language[query] == tongue for query in split.qrels[name]) / total
            assert share == pytest.approx(expected, abs=0.04)


def test_documents_that_share_a_query_stay_together():
    chunks, queries = corpus(30)
    qrels = judge(queries, chunks, [])
    qrels["q-en-000-00-0"] = {"en-000-00": 1, "en-001-00": 1, "en-002-00": 1}
    found = sides(divided(chunks, queries, qrels=qrels), chunks)
    assert found["en-000"] == found["en-001"] == found["en-002"]


# ---- near-duplicates


def with_text(chunks, changes):
    return [replace(chunk, text=changes.get(chunk.id, chunk.text)) for chunk in chunks]


LONG = "The charging dock must be cleaned every week with a dry cloth, never with water or oil. "
ALSO = "在机器人夜间充电之前，请务必用干布清洁充电座，绝对不能用水或者油，否则保修失效。"


def test_documents_with_near_duplicates_stay_together():
    chunks, queries = corpus(30)
    chunks = with_text(
        chunks, {"en-003-01": LONG, "en-004-02": LONG + "Thanks.", "en-005-00": LONG}
    )
    pairs = near_duplicates([chunk.text for chunk in chunks])
    for seed in range(8):
        split = divided(chunks, queries, SplitSettings(seed=seed), pairs)
        found = sides(split, chunks)
        assert found["en-003"] == found["en-004"] == found["en-005"]
        assert len(found["en-003"]) == 1
    assert "3 pairs of near-duplicates keep their documents on one side" in split.notes


@pytest.mark.parametrize("text", [LONG, ALSO])
@pytest.mark.parametrize("copies", [4, 20, 120])
def test_boilerplate_joins_nothing_and_its_queries_leave_with_the_reason(text, copies):
    chunks, queries = corpus(150, chunks=2)
    changes = {f"en-{d:03d}-01": text for d in range(copies)}
    chunks = with_text(chunks, changes)
    split = divided(chunks, queries, pairs=near_duplicates([chunk.text for chunk in chunks]))
    assert reasons(split) == {"boilerplate": copies}
    assert split.counts.rejected == copies
    assert not any(reject.unusable for reject in split.dropped)
    assert len(set(split.group_of_query.values())) == 150


def test_what_is_near_to_boilerplate_leaves_too():
    """One of four alike passages: with its near-duplicates judged, it would join them all."""
    chunks, queries = corpus(30)
    pairs = [(0, 4), (0, 8), (0, 12)]  # a star: only the first sees all four documents
    split = divided(chunks, queries, pairs=pairs)
    assert reasons(split) == {"boilerplate": 4}
    assert all(len(found) == 1 for found in sides(split, chunks).values())


def test_three_documents_are_no_boilerplate_yet():
    chunks, queries = corpus(30)
    chunks = with_text(chunks, {f"en-{d:03d}-01": LONG for d in range(3)})
    split = divided(chunks, queries, pairs=near_duplicates([chunk.text for chunk in chunks]))
    assert not split.dropped


def test_the_same_text_asked_of_two_groups_is_ambiguous():
    chunks, queries = corpus(30)
    for at in (0, 4):
        queries[at] = replace(queries[at], text="What  is COVERED?" if at else "what is covered?")
    split = divided(chunks, queries)
    assert {(r.item, r.code) for r in split.dropped} == {
        (queries[0].id, "ambiguous"), (queries[4].id, "ambiguous")}  # fmt: skip


def test_the_same_text_asked_of_one_group_is_kept():
    chunks, queries = corpus(30)
    for at in (0, 1):
        queries[at] = replace(queries[at], text="what is covered?")
    assert not divided(chunks, queries).dropped


def test_a_query_without_a_passage_is_dropped_with_the_reason():
    chunks, queries = corpus(30)
    queries.append(Query("lost", "where?", evidence=Span("en-000", 9000, 9100)))
    assert reasons(divided(chunks, queries)) == {"no-passage": 1}


def chained(documents, until):
    """Documents joined one to the next by near-duplicates, for the first ``until`` of them."""
    chunks, queries = corpus(documents)
    texts = {}
    for d in range(until - 1):
        text = f"shared by {d} " + str(random.Random(d).getrandbits(300))
        texts |= {f"en-{d:03d}-03": text, f"en-{d + 1:03d}-00": text}
    return with_text(chunks, texts), queries


def test_a_component_over_30_percent_stops_and_names_the_joining_texts():
    chunks, queries = chained(40, 13)
    pairs = near_duplicates([chunk.text for chunk in chunks])
    with pytest.raises(NothingUsable) as caught:
        divided(chunks, queries, SplitSettings(by="document"), pairs)
    assert caught.value.exit_code == 3
    assert "one group holds" in str(caught.value)
    assert "'shared by" in str(caught.value)
    assert "en-000.md and en-001.md" in str(caught.value)


def test_allow_cut_divides_it_and_leaves_no_leak():
    chunks, queries = chained(40, 40)
    pairs = near_duplicates([chunk.text for chunk in chunks])
    split = divided(chunks, queries, SplitSettings(by="document", allow_cut=True), pairs)
    assert min(sizes(split).values()) > 0
    assert leaks(chunks, split.qrels, pairs) == []


# ---- passages that share text without being near-duplicates

FERRY = {
    "en": (
        "The old ferry crosses the fjord twice a day, except when ice closes the northern quay.",
        "Tickets are sold on board by the mate, who accepts coins but no banknotes above fifty.",
        "Bicycles travel free of charge, horses need a certificate from the harbour office.",
        "In storms the captain may turn round at any buoy and refunds half of the fare.",
        "Parcels left on the pier after sunset are kept in the green shed until morning.",
        "School groups of more than ten children must be announced a week ahead by letter.",
    ),
    "zh": (
        "老渡轮每天两次横渡峡湾，北码头封冻时除外。",
        "船票由大副在船上出售，收硬币，不收五十以上的纸币。",
        "自行车免费携带，马匹须持港务所的证明。",
        "遇到风暴，船长可以在任何一个浮标处掉头，并退还一半票款。",
        "日落以后留在栈桥上的包裹，放进绿色棚屋保管到天亮。",
        "十名以上儿童的学校团体，必须提前一周来信预约。",
    ),
}
CANNERY = {
    "en": "Gulls nest on the chimney of the former cannery. Its windows were bricked up long ago, "
    "and nobody remembers who owned the machines. Visitors hear only the wind there.",
    "zh": "海鸥在旧罐头厂的烟囱上筑巢。窗户早已砌死，没有人记得机器属于谁。"
    "来访的人在那里只听得见风声。",
}
KINDS = ("exact", "edited", "contained", "overlapping", "re-ordered")


def twin(kind, language):
    """A text, and one that gives it away."""
    glue = "" if language == "zh" else " "
    parts = FERRY[language]
    whole = glue.join(parts)
    words = list(whole) if language == "zh" else whole.split()
    other = {
        "exact": whole,
        "edited": glue.join("某" if n % 10 == 4 and language == "zh" else
                            "rather" if n % 10 == 4 else word for n, word in enumerate(words)),
        "contained": glue.join(parts[1:4]),
        "overlapping": glue.join([*parts[3:], CANNERY[language]]),
        "re-ordered": glue.join(parts[n] for n in (3, 0, 5, 1, 4, 2)),
    }[kind]  # fmt: skip
    return whole, other


def found_leaks(chunks, queries, split):
    """What an audit of the outcome says."""
    data = RetrievalSet("x", tuple(chunks), tuple(queries), split.qrels)
    return audit(Source("beir", data, {}, {}, (), (), (), Counts(0, 0))).leaks


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_documents_that_share_text_stay_together(kind, language):
    chunks, queries = corpus(30)
    one, other = twin(kind, language)
    chunks = with_text(chunks, {"en-003-01": one, "en-014-02": other})
    pairs = near_duplicates([chunk.embedded for chunk in chunks])
    for seed in range(6):
        split = divided(chunks, queries, SplitSettings(seed=seed), pairs)
        found = sides(split, chunks)
        assert found["en-003"] == found["en-014"]
        assert len(found["en-003"]) == 1
        assert not split.dropped
        assert found_leaks(chunks, queries, split) == ()


def test_shared_text_that_would_join_too_much_keeps_its_train_queries_out_instead():
    """A chain through all documents, of stretches that are a third of a passage."""
    chunks, queries = corpus(40)
    rng = random.Random(3)

    def words(count):
        return " ".join("".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7))
                        for _ in range(count))  # fmt: skip

    links = [words(20) for _ in range(41)]
    texts = {
        f"en-{d:03d}-00": f"{links[d]} {words(20)} {links[d + 1]}" for d in range(40)
    }  # each ends as the next begins
    chunks = with_text(chunks, texts)
    assert near_duplicates([chunk.embedded for chunk in chunks]) == []
    split = divided(chunks, queries)
    assert split.by == "document"
    assert set(reasons(split)) == {"border"}
    assert {reject.item[2:11] for reject in split.dropped} <= set(texts)
    assert found_leaks(chunks, queries, split) == ()


def test_named_parts_are_not_moved_for_shared_text_but_train_queries_on_it_leave():
    chunks, queries = corpus(10)
    one, other = twin("re-ordered", "en")
    chunks = with_text(chunks, {"en-001-01": one, "en-005-02": other})
    split = divided(chunks, queries, named(["en-000.md"], ["en-001.md"]))
    assert [(r.item, r.code) for r in split.dropped] == [("q-en-005-02-0", "border")]
    assert sides(split, chunks)["en-005"] == {"train"}


def test_what_overlaps_in_its_document_joins_no_blocks():
    """Half of each chunk is in the next: joined by that, one block would hold all."""
    rng = random.Random(5)
    book = "".join(chr(0x4E00 + rng.randrange(9000)) for _ in range(6100))
    chunks = [Chunk(f"c{n:03d}", "book", 100 * n, 100 * n + 200, "", book[100 * n :][:200])
              for n in range(60)]  # fmt: skip
    queries = [Query(f"q{n}", f"question {n}?", evidence=Span("book", 50 * n, 50 * n + 40))
               for n in range(120)]  # fmt: skip
    split = divided(chunks, queries)
    assert len(set(split.group_of_query.values())) >= 15


def test_a_question_that_test_asks_in_nearly_the_same_words_leaves_train():
    chunks, queries = corpus(10)
    texts = {
        "q-en-001-00-0": "Where is the key to the cellar of the mill kept?",
        "q-en-005-00-0": "Where is the key to my cellar of the mill kept?",
        "q-en-006-00-0": "Where is the key to the attic of the mill kept?",
    }
    queries = [replace(query, text=texts.get(query.id, query.text)) for query in queries]
    split = divided(chunks, queries, named(["en-000.md"], ["en-001.md"]))
    assert [(r.item, r.code) for r in split.dropped] == [("q-en-005-00-0", "asked-again")]
    assert not split.dropped[0].unusable
    assert split.counts.rejected == 1
    assert found_leaks(chunks, queries, split) == ()


# ---- sections and blocks


def test_few_documents_are_divided_by_section_and_it_is_said():
    chunks, queries = corpus(10, chunks=12, questions=2)
    split = divided(chunks, queries)  # 60 sections of 2 chunks
    assert split.by == "section"
    assert split.optimistic
    assert "only 10 groups by document" in split.notes[0]
    assert "within one document, optimistic for new documents" in split.notes[0]


def one_book(count=60, overlap=20, questions=2):
    """One document without sections, cut with overlap; evidence is anywhere, also on borders."""
    rng = random.Random(2)
    chunks = [
        Chunk(f"c{n:03d}", "book", 100 * n, 100 * n + 100 + overlap, "", f"page {n} {rng.random()}")
        for n in range(count)
    ]
    queries = []
    for n in range(count * questions):
        start = rng.randrange(0, 100 * count - 40)
        queries.append(Query(f"q{n}", f"question {n}?", evidence=Span("book", start, start + 40)))
    return chunks, queries


def test_one_document_is_cut_into_contiguous_blocks():
    chunks, queries = one_book()
    split = divided(chunks, queries)
    assert split.by == "block"
    assert split.optimistic
    blocks = Counter(split.group_of_query.values())
    assert 15 <= len(blocks) <= 40
    in_order = [split.group_of_chunk[chunk.id] for chunk in chunks]
    assert in_order == sorted(in_order)  # contiguous


def test_train_queries_on_a_border_leave():
    chunks, queries = one_book()
    split = divided(chunks, queries)
    assert reasons(split).keys() == {"border"}
    held = [
        chunk for chunk in chunks
        if any(chunk.id in grades for n in ("dev", "test") for grades in split.qrels[n].values())
    ]  # fmt: skip
    trained = [c for c in chunks if any(c.id in grades for grades in split.qrels["train"].values())]
    assert not any(one.span.overlap(other.span) for one in held for other in trained)


def test_split_by_document_asked_for_one_document_stops_with_advice():
    with pytest.raises(NothingUsable, match=r"only 1 group by document; split\.by: auto"):
        divided(*one_book(), SplitSettings(by="document"))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_queries_to_divide_stop(count):
    chunks, queries = one_book()
    with pytest.raises(NothingUsable, match="cannot be split"):
        divided(chunks, queries[:count])


def test_a_small_test_part_comes_with_the_width_of_its_interval():
    split = divided(*corpus(24, chunks=2))
    assert len(split.qrels["test"]) < 30
    n = len(split.qrels["test"])
    width = 2 * 1.96 * 0.35 / n**0.5
    assert f"only {n} test queries: the 95 % interval of nDCG@10 will be about {width:.2f}" in (
        " ".join(split.notes)
    )


# ---- what is asked for


def test_shares_are_taken_as_given():
    split = divided(*corpus(100), SplitSettings(train=0.6, dev=0.2, test=0.2))
    assert sizes(split) == {"train": 240, "dev": 80, "test": 80}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"train": "0.8", "dev": "0.3", "test": "0.1"}, "sum to 1.2"),
        ({"train": "0.8"}, "sum to 0.8"),
        ({"train": 0.8, "dev": 0.1, "test": {"documents": ["a*"]}}, "not both"),
        ({"dev": {"documents": ["a*"]}}, "name the documents of dev and of test"),
        ({"test": 1.5}, "less than 1"),
        ({"by": "page"}, "'auto', 'document'"),
        ({"shuffle": True}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_split_are_refused(given, said):
    with pytest.raises(ValidationError) as caught:
        SplitSettings.model_validate(given)
    assert said in str(caught.value)


def named(dev, test, **more):
    parts = {"dev": dev, "test": test, **more}
    return SplitSettings.model_validate({k: {"documents": v} for k, v in parts.items()})


def test_named_documents_go_where_they_are_named():
    chunks, queries = corpus(10)
    split = divided(chunks, queries, named(["en-000.md"], ["en-00[12].md"]))
    assert sizes(split) == {"train": 28, "dev": 4, "test": 8}
    assert sides(split, chunks)["en-002"] == {"test"}
    assert not split.optimistic


def test_documents_that_no_part_names_are_left_out_when_train_is_named_too():
    chunks, queries = corpus(10)
    split = divided(chunks, queries, named(["en-000.md"], ["en-001.md"], train=["en-00[2-5].md"]))
    assert sizes(split) == {"train": 16, "dev": 4, "test": 4}
    assert reasons(split) == {"unnamed": 16}


def test_a_group_named_in_two_parts_goes_to_test_and_it_is_said():
    chunks, queries = corpus(10)
    chunks = with_text(chunks, {"en-001-01": LONG, "en-005-01": LONG})
    pairs = near_duplicates([chunk.text for chunk in chunks])
    split = divided(chunks, queries, named(["en-000.md"], ["en-001.md"]), pairs)
    assert sides(split, chunks)["en-005"] == {"test"}
    assert any(note.startswith("3 queries moved") for note in split.notes)


def test_globs_that_fit_nothing_and_documents_named_twice_are_refused_together():
    with pytest.raises(ConfigError) as caught:
        divided(*corpus(10), named(["en-000.md", "zh-*"], ["en-00*"]))
    assert len(caught.value.faults) == 2
    assert "'zh-*' fits none of 10 documents" in caught.value.faults[0] + caught.value.faults[1]
    assert "en-000.md is named by test and by dev" in str(caught.value)


# ---- the promise, for anything


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 3))
def test_nothing_is_ever_on_two_sides(rng, seed):
    chunks, queries, pairs = [], [], []
    for d in range(rng.choice([1, 2, 8, 30])):
        start = 0
        for c in range(rng.randint(1, 12)):
            end = start + rng.randint(50, 150)
            chunks.append(Chunk(f"{d}-{c}", f"d{d}", start, end, "", f"{d} {c} {rng.random()}",
                                (f"s{c // 3}",)))  # fmt: skip
            start = end - rng.choice([0, 0, 30])
    for n in range(rng.randint(20, 80)):
        chunk = rng.choice(chunks)
        start = rng.randint(chunk.start, chunk.end - 1)
        text = f"question {rng.randint(0, 300)}"
        queries.append(
            Query(f"q{n}", text, evidence=Span(chunk.document, start, start + rng.randint(1, 60)))
        )
    for _ in range(rng.randint(0, 6)):
        one, other = sorted(rng.sample(range(len(chunks)), 2)) if len(chunks) > 1 else (0, 0)
        if one != other:
            pairs.append((one, other))
    by = rng.choice(["auto", "auto", "document", "section", "block"])
    options = SplitSettings(seed=seed, by=by, allow_cut=rng.random() < 0.5)
    try:
        split = divided(chunks, queries, options, pairs)
    except NothingUsable:
        return
    assert leaks(chunks, split.qrels, pairs) == []
    part = {query: name for name, own in split.qrels.items() for query in own}
    assert split.counts.accepted == len(part)
    assert split.counts.total == len(queries)
    assert all(split.qrels.values())
    by_group = defaultdict(set)
    for query, name in part.items():
        by_group[split.group_of_query[query]].add(name)
    assert all(len(found) == 1 for found in by_group.values())
    if split.by == "document" and not options.allow_cut:
        assert all(len(found) == 1 for found in sides(split, chunks).values())


def test_leaks_are_seen():
    chunks = [Chunk("a", "d", 0, 100, "", "a"), Chunk("b", "d", 80, 180, "", "b"),
              Chunk("c", "e", 0, 100, "", "c"), Chunk("f", "g", 0, 100, "", "f")]  # fmt: skip
    qrels = {
        "train": {"q": {"a": 1}},
        "dev": {"r": {"c": 1}},
        "test": {"s": {"b": 1}, "t": {"f": 1}},
    }
    assert leaks(chunks, qrels, [(2, 3)]) == [
        ("train", "a", "test", "b"),
        ("dev", "c", "test", "f"),
    ]
    assert leaks(chunks, {**qrels, "test": {"s": {"b": 0}}}, [(2, 3)]) == []


# ---- splits that came with the data


def given_data(texts=None, **qrels):
    """Passages a to h, each a document; a query is named after its passages."""
    texts = {name: f"passage {name} alone" for name in "abcdefgh"} | (texts or {})
    chunks = tuple(Chunk(name, name, 0, 50, "", text) for name, text in texts.items())
    made = {
        split: {f"q{'+'.join(own)}": dict.fromkeys(own, 1) for own in part.split()}
        for split, part in qrels.items()
    }
    queries = tuple(Query(q, f"about {q}?") for part in made.values() for q in part)
    queries = tuple({query.id: query for query in queries}.values())
    return RetrievalSet("folder", chunks, queries, made, True)


def test_clean_given_splits_have_nothing_to_report():
    data = given_data(train="a b", dev="c", test="d e", test_hard="e")
    report = check_given_splits(data, [(0, 1), (3, 4), (6, 7)])
    assert report.left_out == report.affected == report.notes == ()
    assert report.pairs == 0


def test_near_duplicates_across_given_splits_leave_train_and_flag_test():
    data = given_data(train="a b ch", dev="f", test="d e")
    # a ~ d directly; b ~ g ~ e through an unjudged passage; c ~ f of dev
    report = check_given_splits(data, [(0, 3), (1, 6), (4, 6), (2, 5)])
    assert report.left_out == ("qa", "qb")
    assert report.left_out_pairs == (("qc+h", "c"),)
    assert report.affected == ("qd", "qe")
    assert report.pairs == 2
    assert "2 pairs" in report.notes[0]
    assert "2 of 3 train queries and 1 further pairs are left out" in report.notes[0]
    assert "2 of 2 test queries are flagged" in report.notes[0]
    assert data.qrels["train"].keys() == {"qa", "qb", "qc+h"}  # never moved


def test_of_a_query_with_several_passages_only_those_near_dev_or_test_leave_training():
    data = given_data(train="abc gh", dev="f", test="d e")
    report = check_given_splits(data, [(0, 3), (2, 5)])  # a ~ d of test, c ~ f of dev
    assert report.left_out == ()
    assert report.left_out_pairs == (("qa+b+c", "a"), ("qa+b+c", "c"))
    assert report.affected == ("qd",)
    assert "0 of 2 train queries and 2 further pairs are left out of training" in report.notes[0]
    assert data.qrels["train"]["qa+b+c"].keys() == {"a", "b", "c"}  # still relevant


def test_a_passage_that_train_and_test_share_leaves_training_and_the_others_stay():
    report = check_given_splits(given_data(train="ab c", dev="f", test="ad"), [])
    assert (report.left_out, report.left_out_pairs) == ((), (("qa+b", "a"),))
    assert (report.affected, report.pairs) == (("qa+d",), 0)
    assert "0 of 2 train queries and 1 further pairs are left out" in report.notes[0]


def test_a_query_without_a_passage_of_its_own_is_left_out_whole():
    report = check_given_splits(given_data(train="ab bc", dev="ag", test="bd"), [])
    assert (report.left_out, report.left_out_pairs) == (("qa+b",), (("qb+c", "b"),))
    assert "1 of 2 train queries and 1 further pairs are left out" in report.notes[0]


def test_where_no_train_pair_is_left_the_error_counts_them_and_says_what_to_do():
    data = given_data(train="ab b", dev="ag", test="bd")
    assert check_given_splits(data, []).left_out == ("qa+b", "qb")
    error = nothing_left(data)
    assert error.exit_code == 3
    assert "folder: no train pair is left: each of the 3 shares its passage" in str(error)
    assert "qrels/train.tsv alone" in str(error)


def test_passages_of_one_document_across_given_splits_count():
    data = given_data(train="a b", dev="c", test="d")
    data = replace(
        data, chunks=tuple(replace(c, document="book") if c.id in "ad" else c for c in data.chunks)
    )
    report = check_given_splits(data, [])
    assert (report.left_out, report.affected) == (("qa",), ("qd",))


def test_boilerplate_joins_no_groups_but_leaks_directly():
    # a, b, c, d, e, f are one text: in more than 3 documents; g ~ a only
    data = given_data(dict.fromkeys("abcdef", "the same notice"), train="ag h", dev="b", test="e")
    pairs = [(0, n) for n in range(1, 6)]
    report = check_given_splits(data, pairs)
    assert (report.left_out, report.left_out_pairs) == ((), (("qa+g", "a"),))
    assert report.affected == ("qe",)


def test_re_ordered_and_overlapping_passages_across_given_splits_leave_train():
    whole, mixed = twin("re-ordered", "en")
    _, window = twin("overlapping", "en")
    data = given_data({"a": mixed, "b": window, "e": whole}, train="a b c", dev="f", test="d e")
    report = check_given_splits(data, [])
    assert report.left_out == ("qa", "qb")
    assert report.affected == ("qe",)
    assert report.pairs == 2
    assert (
        "0 pairs of passages judged in different splits are near-duplicates, 2 more share"
        in (report.notes[0])
    )
    with pytest.raises(IntegrityError, match="2 more share text"):
        check_given_splits(data, [], strict=True)


@pytest.mark.parametrize("train", ["a", "ae"])
def test_nearly_the_same_question_in_train_and_test_is_no_training_pair(train):
    data = given_data(train=f"{train} b", dev="c", test="d")
    query = f"q{'+'.join(train)}"
    texts = {query: "Where is the spare key to my cellar kept?",
             "qd": "Where is the spare key to the cellar kept?"}  # fmt: skip
    data = replace(
        data, queries=tuple(replace(q, text=texts.get(q.id, q.text)) for q in data.queries)
    )
    report = check_given_splits(data, [])
    assert (report.left_out, report.affected) == ((query,), ("qd",))
    assert report.left_out_pairs == ()  # the query as a whole


def test_the_same_question_in_train_and_test_is_no_training_pair():
    data = given_data(train="a b", dev="c", test="d")
    queries = tuple(replace(q, text="How  Long?" if q.id == "qa" else q.text) for q in data.queries)
    queries = tuple(replace(q, text="how long?") if q.id == "qd" else q for q in queries)
    report = check_given_splits(replace(data, queries=queries), [])
    assert (report.left_out, report.affected) == (("qa",), ("qd",))


def test_the_same_pair_in_two_given_splits_stops_and_is_listed():
    with pytest.raises(IntegrityError) as caught:
        check_given_splits(given_data(train="a b", dev="c", test="a d"), [])
    assert caught.value.exit_code == 7
    assert "1 of 5 judgements (20.0%)" in str(caught.value)
    assert "qa (train) and qa (test)" in str(caught.value)


def test_strict_refuses_any_near_duplicate_across_splits():
    data = given_data(train="a", dev="c", test="d")
    check_given_splits(data, [(0, 1)], strict=True)
    with pytest.raises(IntegrityError, match="1 pairs of passages"):
        check_given_splits(data, [(0, 3)], strict=True)


# ---- parts that the data lacks


def bare(parts):
    chunks, queries = corpus(60)
    qrels = judge(queries, chunks, [])
    names = list(qrels)
    made = {name: {q: qrels[q] for q in names[begin:end]} for name, (begin, end) in parts.items()}
    return RetrievalSet("x", tuple(chunks), tuple(queries), made, True)


def test_complete_data_is_left_as_it_is():
    data = bare({"train": (0, 160), "dev": (160, 200), "test": (200, 240)})
    assert complete_splits(data, [], AUTO).data is data


def test_a_missing_dev_part_is_cut_from_train():
    data = bare({"train": (0, 200), "test": (200, 240)})
    made = complete_splits(data, [], AUTO)
    assert made.data.qrels["test"] is data.qrels["test"]
    assert made.data.given_splits
    assert len(made.data.qrels["dev"]) == pytest.approx(30, abs=4)
    assert len(made.data.qrels["train"]) + len(made.data.qrels["dev"]) == 200
    assert "train and dev made of train, by document" in made.notes[0]


def test_judgements_under_another_name_are_divided():
    made = complete_splits(bare({"all": (0, 240)}), [], AUTO)
    assert set(NAMES) <= made.data.qrels.keys()
    assert not made.data.given_splits
    assert set(made.group_of_chunk) == {chunk.id for chunk in made.data.chunks}


def test_without_a_train_part_there_is_nothing_to_train_on():
    with pytest.raises(NothingUsable, match="no train split; there is test only"):
        complete_splits(bare({"test": (0, 40)}), [], AUTO)


def with_real(queries, real_documents, per_document=4):
    """The same queries, so many of some documents asked by users."""
    taken = Counter()
    made = []
    for query in queries:
        real = query.document in real_documents and taken[query.document] < per_document
        taken[query.document] += real
        made.append(replace(query, origin="user" if real else "llm"))
    return made


def test_real_queries_go_to_test_and_dev_first():
    chunks, queries = corpus(60, questions=2)
    real_documents = {f"en-{d:03d}" for d in range(0, 60, 4)}
    queries = with_real(queries, real_documents, per_document=2)
    split = divided(chunks, queries)
    part_of = {query: name for name, part in split.qrels.items() for query in part}
    where = Counter(part_of.get(query.id) for query in queries if query.origin == "user")
    assert where["test"] >= 14  # of 30: two thirds of them, as near as whole groups come
    assert where["train"] == 0
    assert not leaks(chunks, split.qrels, [])


def test_where_real_queries_are_enough_the_generated_ones_of_test_leave():
    chunks, queries = corpus(60, questions=3)
    queries = with_real(queries, {f"en-{d:03d}" for d in range(40)})
    split = divided(chunks, queries)
    origin = {query.id: query.origin for query in queries}
    assert {origin[query] for query in split.qrels["test"]} == {"user"}
    assert len(split.qrels["test"]) >= 50
    left = [reject for reject in split.dropped if reject.code == "beside-real"]
    assert left
    assert not any(reject.unusable for reject in left)
    assert any("decided by its" in note for note in split.notes)
    assert split.counts.total == len(queries)


def test_few_real_queries_do_not_empty_a_part():
    chunks, queries = corpus(60, questions=3)
    queries = with_real(queries, {"en-001", "en-002", "en-003"})
    split = divided(chunks, queries)
    origin = {query.id: query.origin for query in queries}
    assert {origin[query] for query in split.qrels["test"]} == {"user", "llm"}


def test_only_real_queries_are_split_as_any_others():
    chunks, queries = corpus(40, questions=2)
    real = divided(chunks, [replace(query, origin="user") for query in queries])
    assert sizes(real) == sizes(divided(chunks, queries))


def test_further_evidence_joins_no_documents_but_keeps_train_away_from_test():
    chunks, queries = corpus(40)
    first = {chunk.document: chunk for chunk in reversed(chunks)}
    # every query is answered by a passage of the next document too: a chain through all
    names = sorted(first)
    following = {name: first[names[(n + 1) % len(names)]] for n, name in enumerate(names)}
    queries = [replace(q, more_evidence=(following[q.document].span,)) for q in queries]
    split = divided(chunks, queries)
    assert all(split.qrels.values())
    assert not leaks(chunks, split.qrels, [])
    assert any(reject.code == "border" for reject in split.dropped)
    kept = next(iter(split.qrels["test"].values()))
    assert len(kept) == 2


def test_train_queries_with_a_passage_in_a_document_of_test_leave():
    """Further evidence in a passage nobody else is asked about: near to none, but its group is."""
    chunks, queries = corpus(10)
    queries = [q for q in queries if q.id != "q-en-001-03-0"]
    passage = next(chunk for chunk in chunks if chunk.id == "en-001-03")
    at = next(n for n, q in enumerate(queries) if q.id == "q-en-005-00-0")
    queries[at] = replace(queries[at], more_evidence=(passage.span,))
    order, seen = ("train", "dev", "test"), set()
    for seed in range(12):
        options = SplitSettings(by="document", seed=seed, train=0.4, dev=0.3, test=0.3)
        split = divided(chunks, queries, options)
        part = {query: name for name, own in split.qrels.items() for query in own}
        home, there = part["q-en-005-01-0"], part["q-en-001-00-0"]
        leaves = order.index(home) < order.index(there)
        assert [reject.item for reject in split.dropped] == ["q-en-005-00-0"] * leaves
        seen.add(leaves)
    assert seen == {True, False}


def test_queries_shown_to_the_writer_of_others_decide_nothing():
    chunks, queries = corpus(60, questions=2)
    real = {f"en-{d:03d}" for d in range(60)}
    queries = with_real(queries, real, per_document=2)  # two of eight in each document
    queries = [replace(q, flags=("example",)) if q.id.endswith("-00-0") else q for q in queries]
    split = divided(chunks, queries)
    flagged = {query.id for query in queries if query.flags}
    assert len(flagged) == 60
    part = {q: name for name, own in split.qrels.items() for q in own}
    assert {part[query] for query in flagged & part.keys()} == {"train"}
    left = {reject.item for reject in split.dropped if reject.code == "example"}
    assert left == flagged - part.keys()
    groups = {split.group_of_query[q] for name in ("test", "dev") for q in split.qrels[name]}
    assert len(left) == len(groups)  # one each of the documents that went there
    assert split.counts.rejected == len(split.dropped)
