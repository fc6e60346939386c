"""Every finding of the audit, on data small enough to count by hand, in two languages."""

import json
import math

import pytest

from embedtune.datasets.audit import audit
from embedtune.datasets.audit_figures import queries_for, smallest_gain
from embedtune.datasets.source import read_source
from embedtune.embed.tokens import WordTokens
from embedtune.retrieve import Hit

# passages of two sentences, a topic each
EN = {
    "pump": "The green pump lifts water from the well into the tower. It must never run dry.",
    "gate": "Close the sheep gate at dusk and bolt it twice. Foxes know how to lift a latch.",
    "kiln": "Bricks stay in the kiln for three nights. Open the damper slowly on the fourth day.",
    "ferry": "Horses board the ferry last and leave it first. Their grooms stand at the bow.",
    "mill": "When the mill wheel freezes, break the ice from below. Work in pairs, on a rope.",
    "loom": "Blue yarn goes on the left shuttle of the loom. Count the threads before you start.",
}
ZH = {
    "泵": "绿色水泵把井水提升到水塔里，任何时候都不能空转。雨季以后要检查滤网。",
    "门": "黄昏时关好羊圈的大门，插上两道门闩。狐狸懂得怎样抬起搭扣。",
    "窑": "砖坯要在窑里烧足三夜，到第四天才可以慢慢打开风门散热。",
    "船": "马匹最后登上渡船，最先下船，马夫必须站在船头牵住缰绳。",
    "磨": "水磨的轮子结冰时，应从下方敲开冰层，两人一组系好绳子再干活。",
    "织": "蓝色纱线放在织机左边的梭子上，开工之前先数清经线的根数。",
}
WORDS = {"en": EN, "zh": ZH}


def beir(folder, passages, queries, **splits):
    """A BEIR folder: id -> text, id -> text, split -> (query, passage[, grade]) judgements."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", passages), ("queries", queries)):
        rows = [
            {"_id": key, **(text if isinstance(text, dict) else {"text": text})}
            for key, text in texts.items()
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    for split, judged in splits.items():
        lines = [f"{q}\t{p}\t{grade[0] if grade else 1}" for q, p, *grade in judged]
        text = "\n".join(["query-id\tcorpus-id\tscore", *lines])
        (folder / "qrels" / f"{split}.tsv").write_text(text, "utf-8")
    return read_source(folder)


def asked(passages):
    """A question a passage, none like another."""
    stems = ("first", "tenth", "why", "lamp", "slow", "north", "brass", "empty", "river", "wool",
             "ash", "candle")  # fmt: skip
    return {f"q-{key}": f"{stem} {key}?" for stem, key in zip(stems, passages, strict=False)}


def rows(folder, **splits):
    """A folder of JSONL files, a split each."""
    folder.mkdir(exist_ok=True)
    for split, own in splits.items():
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, own)), "utf-8")
    return read_source(folder)


def found(source, code, **tools):
    """The findings of that code."""
    return [finding for finding in audit(source, **tools).findings if finding.code == code]


def only(source, code, **tools):
    [finding] = found(source, code, **tools)
    return finding


def codes(source, **tools):
    return {finding.code for finding in audit(source, **tools).findings}


def divided(tmp_path, language, extra, train=(), test=()):
    """Six passages in train, more of ``extra`` in test, a question each."""
    passages = {**WORDS[language], **extra}
    queries = asked(passages)
    return beir(
        tmp_path / "data", passages, queries,
        train=[(f"q-{key}", key) for key in (*WORDS[language], *train)],
        test=[(f"q-{key}", key) for key in (test or extra)],
    )  # fmt: skip


# ---- leaks


@pytest.mark.parametrize(
    ("language", "kind", "text"),
    [
        ("en", "exact", EN["pump"].upper()),
        ("zh", "exact", ZH["泵"].replace("，", ", ")),
        ("en", "edited", EN["pump"].replace("green", "great").replace("never", "not")),
        ("zh", "edited", ZH["泵"].replace("绿色", "红色")),
        ("en", "contained", EN["kiln"].split(". ")[0] + "."),
        ("zh", "contained", ZH["窑"][:20]),
        ("en", "overlapping", EN["gate"][18:] + " The dogs sleep in the barn on straw, with one "
         "ear open, and wake the shepherd by scratching at his door."),
        ("zh", "overlapping", ZH["门"][5:] + "牧羊犬睡在谷仓的稻草上，竖起一只耳朵，有动静就去抓"
         "牧人的门，一直抓到把他叫醒为止。"),
        ("en", "re-ordered", " ".join(reversed(EN["mill"].split(", "))) + " "
         + " ".join(reversed(EN["loom"].split(". ")))),
    ],
)  # fmt: skip
def test_a_passage_of_test_that_shares_text_with_train_is_a_leak(tmp_path, language, kind, text):
    if kind == "re-ordered":
        sentences = f"{EN['mill']} {EN['loom']}".split(". ")
        source = divided(
            tmp_path, "en", {"both": f"{EN['mill']} {EN['loom']}", "x": ". ".join(sentences[::-1])},
            train=("both",), test=("x",),
        )  # fmt: skip
        leaks = [leak for leak in audit(source).leaks if leak.other == "both"]
    else:
        source = divided(tmp_path, language, {"x": text})
        leaks = list(audit(source).leaks)
    [leak] = leaks
    assert (leak.what, leak.kind, leak.split, leak.item, leak.other_split) == (
        "passage", kind, "test", "x", "train",
    )  # fmt: skip
    finding = only(source, f"passage-leak-{kind}")
    assert (finding.count, finding.total, finding.severity) == (1, 1, "warns")
    assert finding.numbers == {"pairs": 1, "test_queries": 1} or kind == "re-ordered"
    assert "x" in finding.examples[0].ids


def test_a_passage_judged_in_two_splits_leaks_into_itself(tmp_path):
    source = beir(
        tmp_path / "data", EN, asked(EN) | {"late": "Who lifts water?"},
        train=[(f"q-{key}", key) for key in EN], dev=[("late", "gate")], test=[("late", "pump")],
    )  # fmt: skip
    leaks = {(leak.what, leak.kind, leak.split, leak.item, leak.other_split, leak.other)
             for leak in audit(source).leaks}  # fmt: skip
    assert leaks == {
        ("passage", "exact", "test", "pump", "train", "pump"),
        ("passage", "exact", "dev", "gate", "train", "gate"),
        ("query", "exact", "test", "late", "dev", "late"),
    }


def test_a_part_of_test_is_no_other_split(tmp_path):
    source = beir(
        tmp_path / "data", EN, asked(EN),
        train=[("q-pump", "pump")], test=[("q-gate", "gate")], test_short=[("q-gate", "gate")],
    )  # fmt: skip
    assert audit(source).leaks == ()
    assert "same-pair" not in codes(source)


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        ("How deep is the old well?", "how deep is the old well", "exact"),
        ("How deep is the old well at the mill?", "How deep is an old well at the mill?", "edited"),
        ("老磨坊旁边的水井到底有多深？", "老磨坊旁边的水井到底有多深呢？", "edited"),
        ("How deep is the old well?", "How deep is the new canal?", ""),
        ("第一口水井有多深？", "第二口水井有多深？", ""),
    ],
)
def test_near_equal_questions_on_both_sides_are_leaks(tmp_path, train, test, kind):  # S03
    source = beir(
        tmp_path / "data", {**EN, **ZH}, {"one": train, "two": test},
        train=[("one", "pump")], test=[("two", "gate")],
    )  # fmt: skip
    leaks = [(leak.what, leak.kind, leak.item, leak.other) for leak in audit(source).leaks]
    assert leaks == ([("query", kind, "two", "one")] if kind else [])


def test_near_equal_passages_on_both_sides_are_leaks_and_name_the_test_queries(tmp_path):  # S03
    copy = EN["ferry"].replace("grooms", "riders")
    source = beir(
        tmp_path / "data", {**EN, "copy": copy},
        asked(EN) | {"a": "Where do they stand?", "b": "Who boards last of all?"},
        train=[(f"q-{key}", key) for key in EN], test=[("a", "copy"), ("b", "copy")],
    )  # fmt: skip
    finding = only(source, "passage-leak-edited")
    assert finding.numbers == {"pairs": 1, "test_queries": 2}
    assert "2 of 2 (100.0%) test queries are about them" in finding.message


@pytest.mark.parametrize("language", ["en", "zh"])
def test_passages_of_one_form_with_other_facts_are_no_leak(tmp_path, language):
    form = {
        "en": "Invoice {n}. The customer {name} owes {sum} crowns for the goods named below, to be "
        "paid within thirty days of receipt. Interest is charged after that.",
        "zh": "第{n}号账单。客户{name}应为下列货物支付{sum}元，收到之日起三十天内付清。"
        "逾期须支付利息。",
    }[language]
    names = "Orla Finn|Pim Voss|Rhea Lund|Tove Marsh" if language == "en" else "李青|王远|赵宁|孙禾"
    bills = {
        f"bill {number}": form.format(n=4711 + 13 * number, name=name, sum=350 + 271 * number)
        for number, name in enumerate(names.split("|"))
    }
    source = beir(
        tmp_path / "data", bills, {f"q{key}": f"owes? {key}" for key in bills},
        train=[("qbill 0", "bill 0"), ("qbill 1", "bill 1")],
        test=[("qbill 2", "bill 2"), ("qbill 3", "bill 3")],
    )  # fmt: skip
    assert audit(source).leaks == ()


def test_a_negative_of_train_that_test_asks_for_is_a_leak(tmp_path):
    source = rows(
        tmp_path / "data",
        train=[{"anchor": "what lifts water", "positive": EN["pump"], "negative": EN["gate"]}],
        test=[{"anchor": "when to close", "positive": EN["gate"], "negative": EN["kiln"]}],
    )
    [leak] = audit(source).leaks
    assert (leak.kind, leak.split, leak.other_split) == ("exact", "test", "train")


# ---- the same example twice, duplicates, contradictions


def test_the_same_pair_in_two_splits_stops(tmp_path):
    pair = {"anchor": "what lifts the water", "positive": EN["pump"]}
    source = rows(
        tmp_path / "a", train=[pair, {"anchor": "b", "positive": EN["gate"]}], test=[pair]
    )
    finding = only(source, "same-pair")
    assert (finding.severity, finding.count, finding.total) == ("stops", 1, 3)
    assert finding.examples[0].ids == ("train.jsonl:1", "test.jsonl:1")
    assert audit(source).stops


def test_the_same_question_with_the_same_passage_under_two_ids_stops(tmp_path):
    source = beir(
        tmp_path / "data", EN, {"one": "What lifts water?", "two": "WHAT lifts  water?"},
        train=[("one", "pump")], test=[("two", "pump")],
    )  # fmt: skip
    finding = only(source, "same-pair")
    assert (finding.severity, finding.count, finding.total) == ("stops", 1, 2)


def test_the_same_pair_five_hundred_times_is_counted_and_removed(tmp_path):  # D12
    pair = {"anchor": "what lifts the water", "positive": EN["pump"]}
    other = {"anchor": "when is the gate closed", "positive": EN["gate"]}
    source = rows(tmp_path / "data", train=[pair] * 500 + [other])
    finding = only(source, "repeated-rows")
    assert (finding.count, finding.total) == (499, 501)
    assert audit(source).queries == {"train": 2}


def test_the_same_question_with_two_different_positives_is_told(tmp_path):  # D12
    source = rows(
        tmp_path / "data",
        train=[
            {"anchor": "what is bolted?", "positive": EN["gate"]},
            {"anchor": "What is BOLTED?", "positive": EN["kiln"]},
            {"anchor": "羊圈的门什么时候关？", "positive": ZH["门"]},
        ],
    )
    finding = only(source, "several-positives")
    assert (finding.count, finding.total, finding.severity) == (1, 2, "informs")
    assert finding.examples[0].note == "2 passages"


def test_duplicates_of_passages_and_queries_are_counted(tmp_path):
    passages = {**EN, "pump2": EN["pump"].lower(), "pump3": EN["pump"] + "!",
                "泵2": ZH["泵"].replace("雨季", "旱季"), **ZH}  # fmt: skip
    source = beir(
        tmp_path / "data", passages,
        {"a": "What lifts the water?", "b": "what lifts the water", "c": "马匹何时登船？"},
        train=[("a", "pump"), ("b", "gate"), ("c", "船")],
    )  # fmt: skip
    exact = only(source, "duplicate-passages")
    assert (exact.count, exact.total) == (2, 15)
    near = only(source, "similar-passages")
    assert (near.count, near.examples[0].ids) == (1, ("泵2", "泵"))
    assert only(source, "duplicate-queries").count == 1
    assert "similar-queries" not in codes(source)


def test_one_pair_of_texts_with_two_grades_is_a_contradiction(tmp_path):
    source = beir(
        tmp_path / "data", {**EN, "gate2": EN["gate"]}, {"a": "When is it bolted?", "b": "Why?"},
        train=[("a", "gate", 2), ("a", "gate2", 1), ("b", "kiln", 1)],
    )  # fmt: skip
    finding = only(source, "different-grades")
    assert (finding.count, finding.total) == (1, 2)
    assert finding.examples[0].note == "1 and 2"


def test_one_pair_of_texts_with_two_scores_is_a_contradiction_in_either_order(tmp_path):
    source = rows(
        tmp_path / "data",
        train=[
            {"sentence1": "马匹登船", "sentence2": "马上船了", "score": 0.9},
            {"sentence1": "马上船了", "sentence2": "马匹登船", "score": 0.2},
            {"sentence1": "The gate is shut", "sentence2": "A gate is open", "score": 0.4},
        ],
    )
    finding = only(source, "different-scores")
    assert (finding.count, finding.total, finding.severity) == (1, 2, "warns")
    assert finding.examples[0].note == "0.2 and 0.9"
    assert finding.examples[0].ids == ("train.jsonl:1", "train.jsonl:2")


def test_a_positive_that_is_a_negative_of_the_same_question_is_a_contradiction(tmp_path):
    near = EN["loom"].replace("Blue", "Red")
    source = rows(
        tmp_path / "data",
        train=[
            {"anchor": "what is bolted", "positive": EN["gate"], "negative": EN["mill"]},
            {"anchor": "What is bolted", "positive": EN["mill"], "negative": EN["pump"]},
            {"anchor": "where goes the yarn", "positive": EN["loom"], "negative": near},
            {"anchor": "马在哪里", "positive": ZH["船"], "negative": ZH["织"]},
        ],
    )
    finding = only(source, "positive-and-negative")
    assert (finding.count, finding.total) == (2, 4)
    assert [example.ids for example in finding.examples] == [("train.jsonl:1",), ("train.jsonl:3",)]


# ---- labels


def labelled(tmp_path, *pairs):
    return rows(tmp_path / "data", train=[{"text": text, "label": label} for text, label in pairs])


def test_one_class_only_stops(tmp_path):  # D13
    source = labelled(tmp_path, *((text, "farm") for text in EN.values()))
    finding = only(source, "one-label")
    assert finding.severity == "stops"
    assert "farm" in finding.message


def test_a_class_with_one_example_stops_and_is_named(tmp_path):  # D13
    texts = list(EN.values())
    source = labelled(tmp_path, *((text, "a") for text in texts[:3]), (texts[3], "b"),
                      (texts[4], "c"), (texts[5], "c"))  # fmt: skip
    finding = only(source, "single-text-labels")
    assert (finding.severity, finding.count, finding.total) == ("stops", 1, 3)
    assert "e.g. b" in finding.message


def test_labels_written_in_two_ways_are_named(tmp_path):  # D13
    texts = list(ZH.values())
    source = labelled(tmp_path, (texts[0], "Refund"), (texts[1], "refund"), (texts[2], "1"),
                      (texts[3], 1), (texts[4], "refund "), (texts[5], "Refund"))  # fmt: skip
    finding = only(source, "labels-alike")
    assert finding.count == 1
    assert "'Refund'" in finding.message
    assert any("a number and as text" in note for note in audit(source).notes)


def test_one_text_under_two_labels_is_a_contradiction(tmp_path):
    source = labelled(tmp_path, (EN["pump"], "water"), (EN["pump"].upper(), "work"),
                      (EN["gate"], "water"), (EN["kiln"], "work"))  # fmt: skip
    finding = only(source, "two-labels")
    assert (finding.count, finding.total, finding.examples[0].note) == (1, 3, "water and work")


def test_labelled_texts_that_leak_are_found_though_the_splits_share_their_passages(tmp_path):
    train = [{"text": text, "label": str(number % 2)} for number, text in enumerate(EN.values())]
    source = rows(tmp_path / "data", train=train,
                  test=[{"text": EN["pump"].replace("green", "grey"), "label": "0"},
                        {"text": "Nothing of all this", "label": "1"}])  # fmt: skip
    [leak] = audit(source).leaks
    assert (leak.what, leak.kind, leak.split, leak.item) == (
        "text",
        "edited",
        "test",
        "test.jsonl:1",
    )
    assert only(source, "text-leak-edited").severity == "warns"


# ---- unjudged passages that answer


def test_unjudged_copies_of_a_relevant_passage_are_counted(tmp_path):
    longer = EN["mill"] + " Warm your hands at the forge afterwards, never at the open hearth."
    passages = {**EN, "again": EN["gate"].replace("twice", "well"), "longer": longer}
    source = beir(tmp_path / "data", passages, asked(EN),
                  train=[("q-gate", "gate"), ("q-mill", "mill"), ("q-kiln", "kiln"),
                         ("q-loom", "longer")])  # fmt: skip
    finding = only(source, "unjudged-copies")
    # the gate has an edited copy, the mill a passage that holds it; what holds it, has no copy
    assert (finding.count, finding.total) == (2, 4)
    assert {example.note for example in finding.examples} == {"q-gate", "q-mill"}


class Ranked:
    """A retriever that ranks as it was told to."""

    name = "told"

    def __init__(self, rankings):
        self.rankings = rankings

    def search(self, queries, k):
        return [[Hit(chunk, 1 / place) for place, chunk in enumerate(self.rankings[query], 1)][:k]
                for query in queries]  # fmt: skip


def test_unjudged_passages_ranked_before_the_relevant_one_are_counted(tmp_path):
    passages = {**EN, "copy": EN["gate"].replace("twice", "well")}
    queries = {"a": "one", "b": "two", "c": "three", "d": "four"}
    source = beir(tmp_path / "data", passages, queries,
                  train=[("a", "gate"), ("b", "kiln"), ("c", "pump")],
                  test=[("d", "mill")])  # fmt: skip
    told = Ranked({
        "one": ["copy", "gate"],  # a copy of the relevant one is no false negative
        "two": ["pump", "gate", "kiln"],
        "three": ["gate", "loom"],  # not found: says nothing
        "four": ["mill", "kiln"],
    })  # fmt: skip
    finding = only(source, "unjudged-above", retriever=told)
    assert (finding.count, finding.total) == (1, 3)
    assert finding.numbers["above"] == pytest.approx(2 / 3)
    assert finding.examples[0].ids == ("b", "pump", "kiln")
    assert "told finds the passage of 3 of 4 queries" in finding.message


# ---- tokens and languages


class ReadsEnglish(WordTokens):
    """Ideographs are unknown to it."""

    def __init__(self, max_tokens=512):
        super().__init__(max_tokens)
        self.name = "words@revision"

    def unknown(self, texts):
        return [sum("\u4e00" <= character <= "\u9fff" for character in text) for text in texts]


def test_chinese_text_with_an_english_model_stops_with_its_share(tmp_path):  # K07
    source = beir(tmp_path / "data", {**EN, **ZH}, asked({**EN, **ZH}),
                  train=[(f"q-{key}", key) for key in (*EN, *ZH)])  # fmt: skip
    tokens = ReadsEnglish()
    findings = found(source, "unknown-tokens", tokens=tokens)
    passages = next(f for f in findings if "passages" in f.message)
    assert (passages.severity, passages.language) == ("stops", "zh")
    counted = tokens.count(list(ZH.values()))
    assert passages.numbers["share"] == pytest.approx(
        sum(tokens.unknown(list(ZH.values()))) / sum(counted)
    )
    assert "words does not know" in passages.message  # the model, without its revision
    lengths = {(one.role, one.language): one for one in audit(source, tokens=tokens).lengths}
    assert set(lengths) == {("passage", "en"), ("passage", "zh"), ("query", "en"), ("query", "zh")}
    assert lengths["passage", "en"].unknown == 0
    assert lengths["passage", "en"].texts == 6


def test_cut_texts_are_counted_and_the_lost_end_is_shown(tmp_path):
    passages = {"short": "one two three", "long": "one two three four five six seven eight",
                "短": "一二三", "长": "一二三四五六七"}  # fmt: skip
    source = beir(tmp_path / "data", passages, {"q": "five"}, train=[("q", "long")])
    english, chinese = found(source, "cut-texts", tokens=WordTokens(5))
    assert (english.language, english.count, english.total) == ("en", 1, 2)
    assert english.numbers["tokens_cut"] == pytest.approx(3 / 11)
    assert english.examples[0].texts == ("… six seven eight",)
    assert english.examples[0].note == "8 tokens; lost from here"
    assert (chinese.language, chinese.examples[0].texts) == ("zh", ("… 六七",))
    assert english.severity == "warns"  # half of the texts
    assert "cut-texts" not in codes(source, tokens=WordTokens(8))


def test_the_bars_of_the_lengths_hold_every_text(tmp_path):
    passages = {f"p{size}": " ".join(["word"] * size) for size in (1, 2, 3, 30, 31, 64, 65, 500)}
    source = beir(tmp_path / "data", passages, {"q": "five"}, train=[("q", "p1")])
    [lengths] = [
        one for one in audit(source, tokens=WordTokens(64)).lengths if one.role == "passage"
    ]
    assert (lengths.texts, lengths.median, lengths.longest, lengths.cut) == (8, 30, 500, 2)
    assert sum(texts for _, _, texts in lengths.bars) == 8
    assert 64 in {first for first, _, _ in lengths.bars}  # a border at the limit
    assert sum(texts for first, _, texts in lengths.bars if first >= 64) == lengths.cut


def test_questions_in_another_language_than_their_passage_are_told(tmp_path):
    queries = {"a": "羊圈的大门何时关闭", "b": "What is bolted"}
    source = beir(tmp_path / "data", {**EN, **ZH}, queries,
                  train=[("a", "gate"), ("b", "gate")], test=[("b", "门")])  # fmt: skip
    finding = only(source, "other-language")
    assert (finding.count, finding.total) == (2, 3)


# ---- what figures can say


def test_copied_questions_are_counted_by_split(tmp_path):
    source = beir(
        tmp_path / "data", {**EN, **ZH},
        {"a": "must I break the ice from below, work in pairs", "b": "When is the gate bolted?",
         "c": "砖坯要在窑里烧足三夜吗", "d": "要不要在窑里烧"},
        train=[("a", "mill"), ("b", "gate")], test=[("c", "窑"), ("d", "窑")],
    )  # fmt: skip
    # a holds "break the ice from below work in pairs": eight words in a row; c only ten ideographs
    (train,) = found(source, "copied-queries")
    assert (train.count, train.total, train.severity) == (1, 2, "warns")
    assert "train" in train.message


def test_the_chance_level_of_a_small_corpus_is_told_and_warned_of(tmp_path):
    source = beir(tmp_path / "data", EN, asked(EN), train=[("q-pump", "pump")],
                  test=[("q-gate", "gate")])  # fmt: skip
    finding = only(source, "chance-level")
    discounts = sum(1 / math.log2(place + 1) for place in range(1, 7))
    assert finding.numbers == pytest.approx(
        {"ndcg@10": discounts / 6, "hit@1": 1 / 6, "hit@10": 1.0}
    )
    assert finding.severity == "warns"


def test_the_power_of_a_test_follows_its_formula():
    # (1.959964 + 0.841621) * 0.30 / sqrt(100)
    assert smallest_gain(100) == pytest.approx(0.0840476, abs=1e-6)
    assert queries_for(0.05) == 283
    assert queries_for(smallest_gain(777)) in (777, 778)


def test_a_small_test_is_warned_of_with_the_queries_it_takes(tmp_path):
    source = divided(tmp_path, "zh", {"新": "新来的工人第一周只负责喂鹅和擦窗户，不碰任何机器。"})
    finding = only(source, "test-size")
    assert (finding.severity, finding.count, finding.numbers["groups"]) == ("warns", 1, 1)
    assert finding.numbers["smallest_gain"] == pytest.approx(0.8404755)
    assert "0.05 takes 283" in finding.message


def test_one_document_that_holds_most_questions_is_named(tmp_path):
    passages = {
        key: {"text": text, "metadata": {"document": "manual" if key != "loom" else "leaflet"}}
        for key, text in EN.items()
    }
    source = beir(tmp_path / "data", passages, asked(EN),
                  train=[(f"q-{key}", key) for key in EN])  # fmt: skip
    finding = only(source, "one-document-crowds")
    assert (finding.count, finding.total) == (5, 6)
    assert "manual" in finding.message


def test_balance_counts_every_query_and_passage(tmp_path):
    source = beir(tmp_path / "data", {**EN, **ZH}, asked({**EN, **ZH}),
                  train=[("q-pump", "pump"), ("q-gate", "pump"), ("q-kiln", "kiln"),
                         ("q-泵", "泵"), ("q-泵", "门")])  # fmt: skip
    balance = {one.of: dict(one.rows) for one in audit(source).balance}
    assert balance["passages by number of queries"] == {"0": 8, "1": 3, "2": 1}
    assert balance["queries by number of relevant passages"] == {"1": 3, "2": 1}
    assert balance["passages by language"] == {"English": 6, "Chinese": 6}
    assert only(source, "passages-without-queries").count == 8


# ---- as a whole


def test_sound_data_is_only_informed_about(tmp_path):
    source = beir(
        tmp_path / "data", {**EN, **ZH}, asked({**EN, **ZH}),
        train=[(f"q-{key}", key) for key in EN], test=[(f"q-{key}", key) for key in ZH],
    )  # fmt: skip
    result = audit(source, tokens=WordTokens())
    assert result.leaks == ()
    assert not result.stops
    # twelve passages and six test queries are few, and that is all there is to warn of
    assert {f.code for f in result.findings if f.severity == "warns"} == {
        "chance-level",
        "test-size",
    }


def test_an_audit_is_the_same_every_time_as_text_and_as_json(tmp_path):
    source = divided(tmp_path, "en", {"x": EN["pump"].replace("green", "grey"), "y": EN["gate"]})
    one, two = (audit(source, tokens=WordTokens(12)) for _ in range(2))
    assert one == two
    assert json.loads(json.dumps(one.as_json(), allow_nan=False)) == json.loads(
        json.dumps(two.as_json())
    )
    lines = one.lines()
    assert lines[0] == "data (beir): 8 passages, queries: 2 test, 6 train"
    order = [line.partition(":")[0] for line in lines if line.partition(":")[0].isupper()]
    assert order == sorted(order, key=("STOPS", "WARNS", "INFORMS").index)
    shares = one.as_json()["leaks"]
    assert shares["pairs"] == 2
    assert {row["kind"] for row in shares["by_kind"]} == {"edited", "exact"}


def test_hidden_characters_of_the_data_do_not_reach_the_terminal(tmp_path):
    evil = "\u202egnp.exe\x1b[31m\u200b " + EN["pump"]
    source = divided(tmp_path, "en", {"x\u202e": evil, "y": evil + " "})
    text = "\n".join(audit(source, tokens=WordTokens(4)).lines())
    assert text.replace("\n", "").isprintable()
