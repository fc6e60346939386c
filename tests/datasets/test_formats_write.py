"""Writing the four formats, reading them back, and turning one into another."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedtune.datasets.convert import ConvertSettings, convert, draw_pairs
from embedtune.datasets.formats import LabelledRow, PairRow, ScoredRow, key_of
from embedtune.datasets.source import read_source
from embedtune.datasets.write import write_examples, write_parts
from embedtune.errors import ConfigError, NothingUsable
from embedtune.similar import normalise

TYPES = ["jsonl", "json", "csv", "tsv", "parquet"]
AWKWARD = [
    *("NA", "null", "None", "nan", "007", "1e5", "2024-01-02", "TRUE", "-", "=1+1", "@x", "#", "["),
    *(" x ", '"', 'a"b', "a,b", "a;b\tc|d", "two\nlines", "two\r\nlines", "old\rmac", "a\u2028b"),
    *("水泵，阀门。", "“引号”", "𠮷野家", "e\u0301", "👩\u200d🔧", "\u202eabc", "{", "<html>"),
]

# any text that a row may hold: no NUL, no half characters, not blank
texts = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40),
    st.text("水泵阀门检查，。 ab\n\r\t\",;|'", max_size=20),
).filter(lambda text: any(sign.isprintable() and not sign.isspace() for sign in text))


def distinct(rows):
    """Rows that are no copies of each other, nor teach nothing."""
    kept = {}
    for row in rows:
        kept.setdefault(key_of(row), row)
    return list(kept.values())


@st.composite
def row_lists(draw):
    kind = draw(st.sampled_from(["pairs", "triplet", "triplets", "scored", "labelled"]))
    if kind == "scored":
        score = st.floats(0, 1)
        make = st.builds(ScoredRow, texts, texts, score)
    elif kind == "labelled":
        make = st.builds(LabelledRow, texts, texts)
    else:
        width = {"pairs": 0, "triplet": 1, "triplets": 3}[kind]
        lists = st.lists(texts, min_size=width, max_size=width, unique_by=normalise)
        make = st.builds(PairRow, texts, texts, lists.map(tuple)).filter(
            lambda row: (
                normalise(row.anchor) != normalise(row.positive)
                and normalise(row.positive) not in map(normalise, row.negatives)
            )
        )
    return distinct(draw(st.lists(make, min_size=1, max_size=8)))


def read_rows(path: Path) -> list:
    """The rows of a file; named, where the anchors look like answers to the positives."""
    try:
        source = read_source(path)
    except NothingUsable:
        source = read_source(path, {"anchor": "anchor", "positive": "positive"})
    assert not source.rejects
    return [row for rows in source.examples.values() for row in rows]


@pytest.mark.parametrize("kind", TYPES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=row_lists())
def test_what_is_written_reads_back_exactly(tmp_path_factory, kind, rows):
    path = tmp_path_factory.mktemp("rows") / f"rows.{kind}"
    write_examples(rows, path)
    again = read_rows(path)
    assert Counter(again) == Counter(rows)


@pytest.mark.parametrize("kind", TYPES)
def test_awkward_cells_survive_in_every_type_of_file(tmp_path, kind):
    rows = [PairRow(f"number {n}?", cell, (f"not {cell}",)) for n, cell in enumerate(AWKWARD)]
    write_examples(rows, tmp_path / f"rows.{kind}")
    assert read_source(tmp_path / f"rows.{kind}").examples["all"] == tuple(rows)
    first = (tmp_path / f"rows.{kind}").read_bytes()
    write_examples(rows, tmp_path / f"rows.{kind}")
    assert (tmp_path / f"rows.{kind}").read_bytes() == first


def test_the_order_of_the_columns_is_what_sentence_transformers_goes_by(tmp_path):
    def header(*rows) -> list[str]:
        write_examples(rows, tmp_path / "rows.csv")
        return (tmp_path / "rows.csv").read_text("utf-8").splitlines()[0].split(",")

    assert header(PairRow("a", "b")) == ["anchor", "positive"]
    assert header(PairRow("a", "b", ("c",))) == ["anchor", "positive", "negative"]
    several = ["anchor", "positive", "negative_1", "negative_2"]
    assert header(PairRow("a", "b", ("c", "d"))) == several
    assert header(ScoredRow("a", "b", 0.5)) == ["sentence1", "sentence2", "score"]
    assert header(LabelledRow("a", "b")) == ["text", "label"]


def test_rows_with_different_numbers_of_negatives_lose_none(tmp_path):
    rows = [PairRow("a", "b", ("c", "d")), PairRow("e", "f", ("g",))]
    write_examples(rows, tmp_path / "rows.jsonl")
    assert read_source(tmp_path / "rows.jsonl").examples["all"] == (
        PairRow("a", "b", ("c",)),
        PairRow("a", "b", ("d",)),
        PairRow("e", "f", ("g",)),
    )


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(NothingUsable, match="1 of 2 rows have no negative"):
        write_examples([PairRow("a", "b"), PairRow("a", "b", ("c",))], tmp_path / "rows.csv")
    with pytest.raises(NothingUsable, match="no rows to write"):
        write_examples([], tmp_path / "rows.csv")
    with pytest.raises(ConfigError, match=r"expected \.jsonl"):
        write_examples([PairRow("a", "b")], tmp_path / "rows.xlsx")
    assert list(tmp_path.iterdir()) == []


PARTS = {
    "train": tuple(LabelledRow(f"train text {n}", f"class {n % 3}") for n in range(9)),
    "dev": tuple(LabelledRow(f"dev text {n}", "class 2") for n in range(2)),
    "test": tuple(LabelledRow(f"test text {n}", f"class {n}") for n in range(2)),
}


@pytest.mark.parametrize("kind", [*TYPES, "hf"])
def test_parts_read_back_as_splits(tmp_path, kind):
    written = write_parts(PARTS, tmp_path / "set", kind)
    assert len(written) == 3
    assert all(path.is_file() for path in written)
    assert read_source(tmp_path / "set").examples == PARTS


def test_the_datasets_library_loads_the_folder_as_it_is(tmp_path):
    import datasets

    write_parts(PARTS, tmp_path / "set", "hf")
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {
        "train": 9, "validation": 2, "test": 2}  # fmt: skip
    assert loaded["train"].column_names == ["text", "label"]
    # one numbering for all splits, as a loss over classes needs
    assert loaded["validation"].features["label"].names == ["class 0", "class 1", "class 2"]
    assert loaded["validation"]["label"] == [2, 2]
    pairs = [PairRow(f"a{n}", f"b{n}", (f"c{n}", f"d{n}")) for n in range(4)]
    write_parts({"all": pairs}, tmp_path / "pairs", "jsonl")
    files = str(tmp_path / "pairs" / "all.jsonl")
    table = datasets.load_dataset("json", data_files=files, split="train",
                                  cache_dir=str(tmp_path / "cache"))  # fmt: skip
    assert table.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    assert table[3] == {"anchor": "a3", "positive": "b3", "negative_1": "c3", "negative_2": "d3"}


def test_sentence_transformers_trains_on_what_is_written(tmp_path, tiny_model):
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer import losses

    import datasets

    parts = {
        "triplets": [PairRow(f"fee {n}", f"tow fee {n}", (f"mud {n}",)) for n in range(8)],
        "scored": [ScoredRow(f"fee {n}", f"tow {n}", n / 8) for n in range(8)],
        "labelled": [LabelledRow(f"{word} {n}", word) for n in range(4) for word in ("fee", "mud")],
    }
    model = SentenceTransformer(str(tiny_model), device="cpu")
    loss_of = {
        "triplets": losses.MultipleNegativesRankingLoss(model),
        "scored": losses.CoSENTLoss(model),
        "labelled": losses.BatchAllTripletLoss(model),
    }
    tables = {}
    for name, rows in parts.items():
        write_parts({"train": rows}, tmp_path / name, "hf")
        tables[name] = datasets.load_dataset(
            str(tmp_path / name), split="train", cache_dir=str(tmp_path / "cache")
        )
    arguments = Arguments(
        output_dir=str(tmp_path / "out"), max_steps=3, per_device_train_batch_size=8,
        report_to="none", use_cpu=True, save_strategy="no",
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=tables, loss=loss_of
    )
    assert trainer.train().global_step == 3


# ---- conversions


def source_of(tmp_path, rows, name="rows.jsonl", **options):
    write_examples(rows, tmp_path / name)
    return read_source(tmp_path / name, **options)


def test_triplets_to_pairs_and_scores(tmp_path):
    source = source_of(tmp_path, [PairRow("a", "b", ("c", "d")), PairRow("e", "f", ("g", "h"))])
    assert convert(source, "pairs").parts == {"all": (PairRow("a", "b"), PairRow("e", "f"))}
    assert convert(source, "triplets").parts == source.examples
    scores = convert(source, "binary").parts["all"]
    assert scores[:3] == (ScoredRow("a", "b", 1), ScoredRow("a", "c", 0), ScoredRow("a", "d", 0))
    assert convert(source, "scored").parts["all"] == scores


def test_scored_pairs_to_pairs_and_to_zero_and_one(tmp_path):
    rows = [ScoredRow("a", "b", 0.5), ScoredRow("c", "d", 0.49), ScoredRow("e", "E", 1)]
    (tmp_path / "set").mkdir()
    for split in ("train", "dev", "test"):
        write_examples([ScoredRow(f"{split} {r.sentence1}", f"{split} {r.sentence2}", r.score)
                        for r in rows], tmp_path / "set" / f"{split}.jsonl")  # fmt: skip
    source = read_source(tmp_path / "set")
    found = convert(source, "pairs")
    assert found.parts["dev"] == (PairRow("dev a", "dev b"),)  # equal texts teach nothing
    assert found.notes[0] == "train: 2 of 3 rows make no pairs"
    assert [row.score for row in convert(source, "binary").parts["dev"]] == [1, 0, 1]
    wider = convert(source, "pairs", ConvertSettings(threshold=0.4))
    assert len(wider.parts["dev"]) == 2


def labelled_source(tmp_path, count=60):
    rows = [LabelledRow(f"{'abc'[n % 3]} text {n * 7919}", "abc"[n % 3]) for n in range(count)]
    rows.append(LabelledRow("the only one", "rare"))
    dev = [LabelledRow("dev text", "a"), LabelledRow("x y", "b")]
    parts = {"train": rows, "dev": dev, "test": [LabelledRow("test text", "a")]}
    write_parts(parts, tmp_path / "set", "csv")
    return read_source(tmp_path / "set")


def test_labelled_texts_to_pairs_and_triplets(tmp_path):
    source = labelled_source(tmp_path)
    label = {row.text: row.label for rows in source.examples.values() for row in rows}
    settings = ConvertSettings(positives=2, negatives=4)
    found = convert(source, "triplets", settings)
    rows = found.parts["train"]
    assert len(rows) == 60 * 2
    assert Counter(row.anchor for row in rows).most_common(1)[0][1] == 2
    for row in rows:
        assert label[row.anchor] == label[row.positive]
        assert row.anchor != row.positive
        assert len(set(row.negatives)) == 4
        assert all(label[text] != label[row.anchor] for text in row.negatives)
    assert "train: 1 of 61 rows make no triplets" in found.notes
    assert len({row.positive for row in rows}) > 30  # drawn, not always the first
    pairs = convert(source, "pairs", settings).parts["train"]
    assert pairs == tuple(PairRow(row.anchor, row.positive) for row in rows)
    assert found.parts["test"] == ()  # nothing of its label beside it there


def test_what_is_drawn_follows_from_the_seed_not_from_the_order(tmp_path):
    source = labelled_source(tmp_path)
    found = convert(source, "triplets").parts["train"]
    rows = source.examples["train"][::-1]
    write_parts({**source.examples, "train": rows}, tmp_path / "turned", "csv")
    turned = convert(read_source(tmp_path / "turned"), "triplets").parts["train"]
    assert set(turned) == set(found)
    other = convert(source, "triplets", ConvertSettings(seed=7)).parts["train"]
    assert set(other) != set(found)


def test_a_text_of_two_labels_is_no_negative_of_either(tmp_path):
    rows = [LabelledRow(f"{label}{n}", label) for label in "ab" for n in range(4)]
    rows += [LabelledRow("both", "a"), LabelledRow("both", "b")]
    parts = {"train": rows, "dev": [LabelledRow("d", "a")], "test": [LabelledRow("t", "a")]}
    write_parts(parts, tmp_path / "set", "csv")
    source = read_source(tmp_path / "set")
    made = convert(source, "triplets", ConvertSettings(negatives=8)).parts["train"]
    assert all("both" not in row.negatives for row in made)
    assert {len(row.negatives) for row in made if row.anchor == "a1"} == {4}


def test_mined_negatives_make_triplets_of_anything(tmp_path, small_beir):
    source = source_of(tmp_path, [PairRow("A  b", "b"), PairRow("c", "d"), PairRow("e", "f")])
    ids = {chunk.text: chunk.id for chunk in source.data.chunks}
    asked = {query.text: query.id for query in source.data.queries}
    mined = {asked["A  b"]: [ids["d"], ids["f"]], asked["c"]: [ids["b"]]}
    found = convert(source, "triplets", ConvertSettings(negatives=1), mined=mined)
    assert found.parts == {"all": (PairRow("A  b", "b", ("d",)), PairRow("c", "d", ("b",)))}
    assert found.notes == ("all: 1 of 3 rows make no triplets",)
    data = read_source(small_beir)
    query, chunk = data.data.queries[0], data.data.chunks[-1]
    made = convert(data, "triplets", mined={query.id: [chunk.id]}).parts["train"]
    assert [(row.anchor, row.negatives) for row in made] == [(query.text, (chunk.embedded,))]


def test_judgements_become_pairs(small_beir):
    source = read_source(small_beir)
    found = convert(source, "pairs").parts
    assert {split: len(rows) for split, rows in found.items()} == {
        split: sum(map(len, part.values())) for split, part in source.data.qrels.items()
    }


@pytest.mark.parametrize(
    ("rows", "to", "missing"),
    [
        ([PairRow("a", "b"), PairRow("c", "d")], "triplets", "no negatives: mine them first"),
        ([PairRow("a", "b"), PairRow("c", "d")], "binary", "no negatives"),
        ([PairRow("a", "b"), PairRow("c", "d")], "labelled", "no labels"),
        ([ScoredRow("a", "b", 1), ScoredRow("c", "d", 0)], "triplets", "no negatives"),
    ],
)
def test_a_conversion_that_means_nothing_says_what_is_missing(tmp_path, rows, to, missing):
    with pytest.raises(ConfigError, match=missing):
        convert(source_of(tmp_path, rows), to)


def test_a_conversion_that_leaves_nothing_stops(tmp_path):
    source = source_of(tmp_path, [ScoredRow("a", "b", 0.1), ScoredRow("c", "d", 0.2)])
    with pytest.raises(NothingUsable, match="no pairs can be made"):
        convert(source, "pairs")


def test_training_pairs_of_labelled_texts_are_drawn_and_hold_nothing_left_out(tmp_path):
    data = labelled_source(tmp_path).data
    barred = [query.id for query in data.queries_of("train")[:20]]
    pairs = draw_pairs(data, barred, per_query=3, seed=1)
    assert pairs == draw_pairs(data, barred, per_query=3, seed=1)
    assert len(pairs) == 40 * 3
    texts = {query.id: query.text for query in data.queries}
    gone = {texts[query] for query in barred}
    assert all({pair.anchor, pair.positive}.isdisjoint(gone) for pair in pairs)
    assert all(data.qrels["train"][pair.query][pair.chunk] == 1 for pair in pairs)


def test_columns_are_written_for_people_to_read(tmp_path):
    write_examples([PairRow("水？", "水。")], tmp_path / "rows.jsonl")
    row = json.loads((tmp_path / "rows.jsonl").read_text("utf-8"))
    assert row == {"anchor": "水？", "positive": "水。"}
    assert "水" in (tmp_path / "rows.jsonl").read_text("utf-8")
