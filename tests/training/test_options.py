"""What is done to a base before it is trained, on tiny random models and with both engines."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from embedtune.config import load_config
from embedtune.embed.loading import load_sentence_transformer, longest_text
from embedtune.embed.local import encode
from embedtune.embed.packed import packable
from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import sha256_of
from embedtune.records import Pair
from embedtune.training import vocabulary
from embedtune.training.examples import from_pairs
from embedtune.training.lora import LoraSettings, has_adapters, save_plain
from embedtune.training.merge import merge_into
from embedtune.training.options import ModelSettings, Prompts, prepare
from embedtune.training.plan import TrainingSettings, peak_rate
from embedtune.training.train import train

TOPICS = ("robot", "battery", "mud", "fee", "radio", "crate", "winter", "fruit")
HIDDEN = ("dock", "charge", "tow", "price", "firmware", "pad", "probe", "ripe")
# a field of its own sends a training to the plain engine
ENGINES = {"fast": {}, "plain": {"trainer": {"dataloader_num_workers": 0}}}
engines = pytest.mark.parametrize("engine", ENGINES)


def short(engine: str = "fast", **changes: object) -> TrainingSettings:
    """Four steps."""
    fixed = {"batch_size": 8, "learning_rate": 3e-3, "evaluate_every": 2, "log_every": 1,
             "precision": "fp32", "max_steps": 4}  # fmt: skip
    return TrainingSettings(**{**fixed, **ENGINES[engine], **changes})


SHORT = short()
LORA = LoraSettings(rank=4, alpha=8, dropout=0.1)


def topic_pairs(count: int = 16) -> list[Pair]:
    """Queries and passages that share nothing but a topic the model has to learn."""
    return [
        Pair(f"q{number}", f"c{number}", f"what is {TOPICS[number % 8]} {number}",
             f"the {HIDDEN[number % 8]} is for {HIDDEN[number % 8]} {number // 8}")
        for number in range(count)
    ]  # fmt: skip


def excluded_of(pairs: list[Pair]):
    """All passages on the topic of a query."""
    topic = {pair.query: int(pair.query[1:]) % 8 for pair in pairs}
    return {
        pair.query: frozenset(p.chunk for p in pairs if topic[p.query] == topic[pair.query])
        for pair in pairs
    }.__getitem__


def accuracy(model) -> float:
    """Share of topics whose passage is nearest."""
    pairs = topic_pairs(8)
    left = model.encode([pair.anchor for pair in pairs])
    right = model.encode([pair.positive for pair in pairs])
    return float(((left @ right.T).argmax(axis=1) == range(8)).mean())


def trained_with(
    base: Path, work: Path, settings: TrainingSettings, pairs: list[Pair] | None = None, **more
):
    pairs = pairs or topic_pairs(16)
    return train(
        [from_pairs("train", pairs)], str(base), work, excluded=excluded_of(pairs),
        score=lambda model: 0.5, settings=settings, **more,
    )  # fmt: skip


def plainly(folder: Path):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu")


def losses(trained) -> list[float]:
    return [row["loss"] for row in trained.history if "loss" in row]


def prepared(base: Path, settings: TrainingSettings = SHORT, texts: tuple[str, ...] = (), **model):
    loaded = load_sentence_transformer(str(base), device="cpu")
    done = prepare(loaded, ModelSettings(**model), settings, queries=(), passages=texts)
    return loaded, done.notes


def test_settings_are_read_as_they_are_written():
    settings = load_config(
        None,
        ["model.pooling=last", "model.prompts={query: 'query: '}", "model.max_length=128",
         "training.lora.rank=8", "training.new_tokens=off"],
    )  # fmt: skip
    assert settings.model.pooling == "lasttoken"
    assert settings.model.prompts == Prompts(query="query: ", document="")
    assert settings.model.max_length == 128
    assert settings.training.lora == LoraSettings(rank=8)
    assert settings.training.new_tokens == "off"


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("training.lora=on", "training.lora: must be a mapping with rank, alpha, dropout, modules"),
        ("training.lora.rnk=8", r"training.lora.rnk: unknown setting; did you mean rank\?$"),
        ("model.prompts.qery=a", r"model.prompts.qery: unknown setting; did you mean query\?$"),
        ("model.pooling=sum", "model.pooling: must be 'mean', 'cls', 'max'"),
        ("training.new_tokens=1", "must be greater than or equal to 2"),
    ],
)
def test_faults_of_settings_inside_settings_are_told_once_and_by_name(setting, fault):
    with pytest.raises(ConfigError, match=fault) as caught:
        load_config(None, [setting])
    assert len(caught.value.faults) == 1


# ---- pooling

TEXT = "the robot arm is on the dock"
BY_HAND = {  # token vectors (n, 32) -> one vector
    "mean": lambda tokens: tokens.mean(axis=0),
    "cls": lambda tokens: tokens[0],
    "max": lambda tokens: tokens.max(axis=0),
    "last": lambda tokens: tokens[-1],
    "weighted": lambda tokens: np.average(tokens, axis=0, weights=range(1, len(tokens) + 1)),
}


@pytest.mark.parametrize("mode", BY_HAND)
def test_pooling_is_as_defined_and_survives_saving(tiny_model, tmp_path, mode):
    model, _ = prepared(tiny_model, pooling=mode)
    tokens = model.encode(TEXT, output_value="token_embeddings").numpy()
    expected = BY_HAND[mode](tokens)
    expected /= np.linalg.norm(expected)
    save_plain(model, tmp_path / "m")
    for one in (model, plainly(tmp_path / "m")):
        np.testing.assert_allclose(one.encode(TEXT), expected, atol=1e-5)


@engines
def test_what_is_trained_is_pooled_as_asked(tiny_model, tmp_path, engine):
    own = trained_with(tiny_model, tmp_path / "own", short(engine))
    first = trained_with(
        tiny_model, tmp_path / "cls", short(engine), model_settings=ModelSettings(pooling="cls")
    )
    assert losses(own)[0] != pytest.approx(losses(first)[0])
    assert plainly(first.model)[1].pooling_mode == "cls"


def test_a_model_without_pooling_cannot_be_pooled():
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models

    table = StaticEmbedding(Tokenizer(models.WordLevel({"a": 0}, unk_token="a")), embedding_dim=8)
    static = SentenceTransformer(modules=[table], device="cpu")
    for model, training in (
        (ModelSettings(pooling="cls"), SHORT),
        (ModelSettings(max_length=9), SHORT),
        (ModelSettings(), short("fast", lora=LORA)),
        (ModelSettings(), short("fast", new_tokens=2)),
        (ModelSettings(), short("fast", freeze_layers=1)),
    ):
        with pytest.raises(ConfigError, match=r"^(model|training)\.\w+"):
            prepare(static, model, training, queries=["a"], passages=["a a"])


# ---- prompts


@engines
def test_prompts_are_trained_with_and_saved(tiny_model, tmp_path, engine):
    """The same texts with the prompts written out give the same losses."""
    prompts = {"query": "what is ", "document": "row "}
    pairs = topic_pairs(16)
    written = [
        Pair(pair.query, pair.chunk, f"what is {pair.anchor}", f"row {pair.positive}")
        for pair in pairs
    ]
    settings = short(engine)
    none = trained_with(tiny_model, tmp_path / "none", settings, pairs)
    asked = trained_with(
        tiny_model,
        tmp_path / "asked",
        settings,
        pairs,
        model_settings=ModelSettings(prompts=prompts),
    )
    by_hand = trained_with(tiny_model, tmp_path / "hand", settings, written)
    assert losses(asked) == pytest.approx(losses(by_hand))
    assert losses(asked)[0] != pytest.approx(losses(none)[0])
    saved = json.loads((asked.model / "config_sentence_transformers.json").read_text("utf-8"))
    assert saved["prompts"] == prompts
    model = plainly(asked.model)
    np.testing.assert_allclose(
        model.encode_query("robot"), model.encode("what is robot", prompt=""), atol=1e-6
    )
    np.testing.assert_allclose(
        model.encode_document("robot"), model.encode("row robot", prompt=""), atol=1e-6
    )


def test_prompts_of_other_names_do_not_go_before_the_ones_asked_for(tiny_model, tmp_path):
    model = plainly(tiny_model)
    model.prompts, model.default_prompt_name = {"passage": "old ", "other": "a "}, "other"
    save_plain(model, tmp_path / "m")
    model, _ = prepared(tmp_path / "m", prompts={"document": "new "})
    assert model.prompts == {"query": "", "document": "new "}
    assert model.default_prompt_name is None


def test_control_tokens_work_in_prompts_only_where_the_prompt_has_them(tiny_model):
    model, _ = prepared(tiny_model, prompts={"query": "how "})
    assert model.tokenizer.split_special_tokens
    model, _ = prepared(tiny_model, prompts={"query": "[SEP] "})
    assert not model.tokenizer.split_special_tokens


# ---- length


def test_the_length_is_of_the_data_and_never_beyond_what_the_model_reads(tmp_path, tiny_model):
    long = tmp_path / "long"
    shutil.copytree(tiny_model, long)
    model = plainly(tiny_model)
    assert longest_text(model) == 64
    # a model of 1,024 positions
    from transformers import BertConfig, BertModel

    config = BertConfig.from_pretrained(long)
    config.max_position_embeddings = 1024
    BertModel(config).save_pretrained(long)
    model = plainly(long)
    model.max_seq_length = 1000
    save_plain(model, long)

    def of(*words: int) -> tuple[int, tuple[str, ...]]:
        loaded, notes = prepared(long, texts=tuple("a " * count for count in words))
        return loaded.max_seq_length, notes

    assert of(*range(10, 110)) == (256, ())  # short texts do not make it near-sighted
    # with [CLS] and [SEP] 302 to 401: the 99th of 100 has 400, a multiple of 8
    cut = "1 of 100 training texts are cut at 400 tokens"
    assert of(*range(300, 400)) == (400, (cut,))
    assert of(*range(298, 398))[0] == 400  # 398 rounded up
    assert of(*range(1100, 1200))[0] == 1000
    assert prepared(long, max_length=24, texts=("a " * 22, "a " * 23))[1] == (
        "1 of 2 training texts are cut at 24 tokens",
    )
    loaded, _ = prepared(long, max_length=24)
    save_plain(loaded, tmp_path / "saved")
    assert plainly(tmp_path / "saved").max_seq_length == 24
    with pytest.raises(ConfigError, match=r"max_length: 65 is more than the 64 tokens"):
        prepared(tiny_model, max_length=65)


# ---- LoRA


@engines
def test_lora_trains_few_weights_and_leaves_a_plain_model(tiny_model, tmp_path, engine):
    import torch

    model, notes = prepared(tiny_model, short(engine, lora=LORA))
    before = plainly(tiny_model)
    # 2 layers of 4 products 32 x 32, one 32 x 64 and one 64 x 32, rank 4
    count = 2 * 4 * (4 * 64 + 2 * 96)
    assert sum(own.numel() for own in model.parameters() if own.requires_grad) == count
    assert notes[-1].startswith(f"LoRA trains {count:,} weights")
    texts = [pair.positive for pair in topic_pairs(8)]
    np.testing.assert_array_equal(model.encode(texts), before.encode(texts))

    rate = {"learning_rate": 1e-2}
    trained = trained_with(tiny_model, tmp_path, short(engine, lora=LORA, **rate))
    assert not [path for path in trained.model.rglob("*") if "adapter" in path.name]
    after = plainly(trained.model)
    assert not has_adapters(after)
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed == {
        f"0.model.encoder.layer.{layer}.{name}.weight"
        for layer in (0, 1)
        for name in ("attention.self.query", "attention.self.key", "attention.self.value",
                     "attention.output.dense", "intermediate.dense", "output.dense")
    }  # fmt: skip


def test_what_is_saved_of_an_adapted_model_gives_its_vectors(tiny_model, tmp_path):
    import torch

    model, _ = prepared(tiny_model, short("fast", lora=LORA))
    with torch.no_grad():
        for name, own in model.named_parameters():
            if "lora_B" in name:
                own.normal_(generator=torch.Generator().manual_seed(len(name)))
    texts = [pair.positive for pair in topic_pairs(8)]
    expected = model.encode(texts)
    assert np.abs(expected - plainly(tiny_model).encode(texts)).max() > 0.01
    save_plain(model, tmp_path / "m")
    np.testing.assert_allclose(plainly(tmp_path / "m").encode(texts), expected, atol=1e-5)
    assert packable(model) == ""  # so the fast engine trains it, and sees the same
    np.testing.assert_allclose(encode(model, texts, "document"), expected, atol=1e-5)
    assert has_adapters(model)
    np.testing.assert_array_equal(model.encode(texts), expected)


@engines
@pytest.mark.parametrize("what", ["lora", "new_tokens"])
def test_a_changed_model_goes_on_to_the_same_weights(tiny_model, tmp_path, engine, what):
    settings = short(engine, **({"lora": LORA} if what == "lora" else {"new_tokens": 2}))
    pairs = [
        Pair(pair.query, pair.chunk, pair.anchor, f"{pair.positive} 井") for pair in topic_pairs(16)
    ]

    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        trained_with(tiny_model, tmp_path / "b", settings, pairs, progress=stop)
    one = trained_with(tiny_model, tmp_path / "a", settings, pairs)
    two = trained_with(tiny_model, tmp_path / "b", settings, pairs)
    assert len(losses(one)) == 4
    assert losses(one) == losses(two)
    weights = [sha256_of(own.model / "model.safetensors") for own in (one, two)]
    assert weights[0] == weights[1]


def test_lora_learns(tiny_model, tmp_path):
    pairs = topic_pairs(32)
    trained = train(
        [from_pairs("train", pairs)], str(tiny_model), tmp_path, excluded=excluded_of(pairs),
        score=accuracy,
        settings=short(max_steps=24, evaluate_every=6, lora=LORA, learning_rate=2e-2),
    )  # fmt: skip
    assert trained.best_score > trained.base_score
    assert accuracy(plainly(trained.model)) == trained.best_score


def test_lora_is_refused_where_it_cannot_be(tiny_model, monkeypatch):
    with pytest.raises(ConfigError, match=r"modules: kew is not in this model's layers; there are"):
        prepared(tiny_model, short("fast", lora={"modules": ["query", "kew"]}))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'embedtune\[lora\]'"):
        prepared(tiny_model, short("fast", lora=LORA))


def test_adapters_take_a_higher_learning_rate():
    assert peak_rate(TrainingSettings()) == 1e-4
    assert peak_rate(TrainingSettings(lora=LORA)) == 4e-4
    assert peak_rate(TrainingSettings(lora=LORA, learning_rate=1e-3)) == 1e-3


# ---- freezing


@engines
def test_frozen_layers_are_bitwise_what_they_were(tiny_model, tmp_path, engine):
    import torch

    trained = trained_with(tiny_model, tmp_path, short(engine, freeze_layers=1))
    old, new = plainly(tiny_model).state_dict(), plainly(trained.model).state_dict()
    for name in old:
        frozen = "embeddings" in name or "layer.0." in name or "pooler" in name
        key = ".key.bias" in name  # softmax does not feel it: its gradient is rounding alone
        assert key or torch.equal(old[name], new[name]) == frozen, name
    assert "the embeddings and the 1 lowest of 2 layers are not trained" in trained.notes


def test_lora_leaves_frozen_layers_out(tiny_model):
    model, _ = prepared(tiny_model, short("fast", lora=LORA, freeze_layers=1))
    adapted = {name for name, _ in model.named_parameters() if "lora" in name}
    assert adapted
    assert not [name for name in adapted if "layer.0." in name]


@pytest.mark.parametrize("family", ["Roberta", "MPNet", "DistilBert", "Electra", "ModernBert"])
def test_layers_are_found_whatever_a_family_calls_them(encoder, family):
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
             "intermediate_size": 64, "max_position_embeddings": 64}  # fmt: skip
    if family == "DistilBert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    vocabulary = len(transformers.AutoTokenizer.from_pretrained(encoder))
    config = getattr(transformers, f"{family}Config")(
        vocab_size=vocabulary, pad_token_id=0, **sizes
    )
    (encoder / "model.safetensors").unlink()
    getattr(transformers, f"{family}Model")(config).save_pretrained(encoder)

    def trained_weights(**changes: object) -> set[str]:
        model = load_sentence_transformer(str(encoder), pooling="mean")
        prepare(model, ModelSettings(), short(**changes), queries=(), passages=())
        return {name for name, own in model.named_parameters() if own.requires_grad}

    left = trained_weights(freeze_layers=1)
    assert not [name for name in left if ".embeddings." in name or ".0." in name[2:]]
    assert [name for name in left if ".1." in name]
    adapted = trained_weights(lora=LORA)
    assert adapted
    assert all("lora_" in name for name in adapted)
    assert {".0." in name[2:] for name in adapted} == {True, False}


def test_freezing_all_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="2 of the 2 layers leaves nothing to train; 1 at most"):
        prepared(tiny_model, short("fast", freeze_layers=2))


# ---- vocabulary

# 井 and 泵 are unknown to the tiny model, 机 and 器 are known; "sprocket" is eight pieces of it
TEXTS = ("机器井泵", "the Sprocket is on", "井 of the sprocket 2024", "泵井", "a 2024 gasket")


def test_words_that_recur_and_are_not_known_become_tokens(tiny_model, tmp_path):
    import torch

    before = plainly(tiny_model)
    model, notes = prepared(tiny_model, short("fast", new_tokens=2), TEXTS)
    assert notes == ("3 words are new to the tokenizer: 井, 泵, sprocket",)
    save_plain(model, tmp_path / "m")
    load_sentence_transformer(str(tmp_path / "m"))  # table and tokenizer fit
    after = plainly(tmp_path / "m")
    tokens = after.tokenizer.tokenize("机器井泵, the Sprocket of sprockets")
    tokens = [token.strip() for token in tokens]
    assert tokens[:7] == ["机", "器", "井", "泵", ",", "the", "sprocket"]
    assert tokens[7:] == before.tokenizer.tokenize("of sprockets")
    old = before[0].model.get_input_embeddings().weight
    new = after[0].model.get_input_embeddings().weight
    assert len(new) == len(old) + 3 == len(after.tokenizer)
    assert torch.equal(new[: len(old)], old)
    pieces = before.tokenizer.convert_tokens_to_ids(before.tokenizer.tokenize("sprocket"))
    assert len(pieces) == 8
    torch.testing.assert_close(new[-1], old[pieces].mean(dim=0))
    assert torch.nn.functional.cosine_similarity(new[-3], new[-2], dim=0) < 0.9  # told apart
    texts = [pair.positive for pair in topic_pairs(8)]
    np.testing.assert_array_equal(before.encode(texts), after.encode(texts))
    assert not np.allclose(after.encode("井"), after.encode("泵"))
    np.testing.assert_array_equal(before.encode("井"), before.encode("泵"))


def test_a_word_begins_alike_whatever_else_is_new(tiny_model):
    vectors = []
    for texts in (TEXTS, TEXTS[:1] * 2 + ("井龙", "龙", "井")):
        model, _ = prepared(tiny_model, short("fast", new_tokens=2), texts)
        place = model.tokenizer.convert_tokens_to_ids("井")
        vectors.append(model[0].model.get_input_embeddings().weight[place].detach().numpy())
    np.testing.assert_array_equal(*vectors)


def test_new_words_have_a_cap_and_an_order_by_content(tiny_model, monkeypatch):
    tokenizer = plainly(tiny_model).tokenizer
    assert vocabulary.new_words(tokenizer, TEXTS, 1) == ["井", "泵", "sprocket", "gasket"]
    assert vocabulary.new_words(tokenizer, TEXTS[::-1], 1) == ["井", "泵", "sprocket", "gasket"]
    assert vocabulary.new_words(tokenizer, TEXTS * 3, 4) == []  # the same text counts once
    monkeypatch.setattr(vocabulary, "MOST", 2)
    assert vocabulary.new_words(tokenizer, TEXTS, 1) == ["井", "泵"]


def byte_pairs():
    """As RoBERTa's: no token is unknown, blanks belong to the words after them."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    bytes_of = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: id for id, token in enumerate(["<unk>", "<pad>", *bytes_of, "Ġa", "Ġrobot"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "a")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def sentence_pieces():
    """As XLM-R's: blanks are part of the pieces, unknown characters are one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = ["<unk>", "<pad>", "▁", "▁a", "▁robot", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


@pytest.mark.parametrize(
    ("kind", "first", "last"), [(byte_pairs, "a", "Ġa"), (sentence_pieces, "▁a", "▁a")]
)
def test_tokenizers_of_other_families_take_new_words_and_leave_the_rest(
    tmp_path, kind, first, last
):
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=kind(), unk_token="<unk>", pad_token="<pad>", model_max_length=60
    )
    BertModel(
        BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1,
                   num_attention_heads=2, intermediate_size=64, max_position_embeddings=64)
    ).save_pretrained(tmp_path / "encoder")  # fmt: skip
    tokenizer.save_pretrained(tmp_path / "encoder")
    loaded = load_sentence_transformer(str(tmp_path / "encoder"), pooling="mean")
    kept = loaded.encode("a robot a")
    done = prepare(
        loaded, ModelSettings(), short(new_tokens=2), queries=["a sprocket"], passages=TEXTS
    )
    assert set(done.notes[-1].partition(": ")[2].split(", ")) >= {"sprocket", "井", "泵"}
    save_plain(loaded, tmp_path / "m")
    after = load_sentence_transformer(str(tmp_path / "m")).tokenizer

    def tokens(text: str) -> list[str]:
        return after.convert_ids_to_tokens(after(text)["input_ids"])

    assert tokens("a sprocket a") == [first, "sprocket", last]
    assert tokens("井泵") == ["井", "泵"]
    assert "sprocket" not in tokens("sprockets")
    np.testing.assert_array_equal(loaded.encode("a robot a"), kept)


@engines
def test_new_words_are_trained_and_the_model_can_be_merged(tiny_model, tmp_path, engine):
    import torch

    pairs = [
        Pair(pair.query, pair.chunk, pair.anchor, f"{pair.positive} 井") for pair in topic_pairs(16)
    ]
    trained = trained_with(tiny_model, tmp_path, short(engine, new_tokens=2), pairs)
    tuned, base = plainly(trained.model), plainly(trained.base)
    table = [model[0].model.get_input_embeddings().weight for model in (tuned, base)]
    place = tuned.tokenizer.convert_tokens_to_ids("井")
    assert not torch.equal(table[0][place], table[1][place])
    middle = table[0].detach().lerp(table[1].detach(), 0.5)
    merge_into(tuned, base, tuned, 0.5)
    torch.testing.assert_close(tuned[0].model.get_input_embeddings().weight.detach(), middle)
    with pytest.raises(IntegrityError, match="cannot merge"):
        merge_into(tuned, plainly(tiny_model), tuned, 0.5)


@pytest.mark.parametrize("other", [{"lora": LORA}, {"freeze_layers": 1}])
def test_new_words_need_embeddings_that_are_trained(other):
    with pytest.raises(ValueError, match="new_tokens needs embeddings that are trained"):
        TrainingSettings(new_tokens=2, **other)


# ---- gradient checkpointing


def test_checkpointed_gradients_train_the_same_model(tiny_model, tmp_path):
    kept, computed = (
        trained_with(
            tiny_model, tmp_path / str(twice), short("plain", gradient_checkpointing=twice)
        )
        for twice in (False, True)
    )
    assert losses(kept) == pytest.approx(losses(computed), rel=1e-5)


# ---- plain encoders


@pytest.fixture
def encoder(tiny_model, tmp_path) -> Path:
    """A folder of transformers: no modules, no pooling."""
    from transformers import AutoModel, AutoTokenizer

    folder = tmp_path / "encoder"
    model = plainly(tiny_model)
    AutoModel.from_pretrained(tiny_model).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)
    assert not (folder / "modules.json").exists()
    return folder


def test_a_plain_encoder_needs_a_pooling_that_is_named(encoder, tiny_model, tmp_path):
    with pytest.raises(ConfigError, match=r"a plain encoder.*name one in model\.pooling"):
        load_sentence_transformer(str(encoder))
    model = load_sentence_transformer(str(encoder), pooling="mean")
    texts = [pair.positive for pair in topic_pairs(8)]
    np.testing.assert_array_equal(model.encode(texts), plainly(tiny_model).encode(texts))
    trained = trained_with(
        encoder, tmp_path / "w", SHORT, model_settings=ModelSettings(pooling="mean")
    )
    assert [type(module).__name__ for module in plainly(trained.model)] == [
        "Transformer", "Pooling", "Normalize"
    ]  # fmt: skip


def test_a_folder_that_lost_its_list_of_modules_is_no_plain_encoder(tiny_model, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(tiny_model, folder)
    (folder / "modules.json").unlink()
    for pooling in ("auto", "mean"):
        with pytest.raises(IntegrityError, match=r"no modules\.json"):
            load_sentence_transformer(str(folder), pooling=pooling)


def test_an_encoder_without_a_length_reads_as_far_as_it_has_positions(encoder):
    file = encoder / "tokenizer_config.json"
    config = json.loads(file.read_text("utf-8"))
    config["model_max_length"] = 10**30
    file.write_text(json.dumps(config), "utf-8")
    model = load_sentence_transformer(str(encoder), pooling="cls")
    assert model.max_seq_length == 64
    assert np.isfinite(model.encode("the " * 100)).all()


def test_a_pooling_named_changes_no_model_while_it_is_loaded(tiny_model):
    """It is `prepare` that does, so that a base is judged as it is."""
    assert load_sentence_transformer(str(tiny_model), pooling="cls")[1].pooling_mode == "mean"
