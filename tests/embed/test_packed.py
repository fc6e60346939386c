"""The flat pass gives what the padded model gives: vectors, gradients, for every family."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from embedtune.embed.local import encode
from embedtune.embed.packed import Packed, packable, token_ids
from embedtune.errors import ConfigError

TEXTS = [
    "robot battery night shift",
    "",
    "the mud",
    "机器人电池夜班",
    "who does the insurance report for the tow driver, and when?",
    "a",
    "the mud",
    "õ robot õ õ arm",  # unknown letters
    "charge dock " * 60,  # cut at 64 tokens
    "how to reset the fault of the arm in winter",
]
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZES = {**SMALL, "intermediate_size": 48, "max_position_embeddings": 70, "vocab_size": 200}
MODES = ("mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")


def configurations():
    """One small network of each family by name."""
    import transformers

    return {
        "bert": transformers.BertConfig(**SIZES, hidden_act="gelu_new"),
        "roberta": transformers.RobertaConfig(**SIZES, type_vocab_size=1),
        "xlm-roberta": transformers.XLMRobertaConfig(**SIZES, type_vocab_size=1),
        "camembert": transformers.CamembertConfig(**SIZES, type_vocab_size=1),
        "mpnet": transformers.MPNetConfig(**SIZES),
        "distilbert": transformers.DistilBertConfig(
            dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=70,
            vocab_size=200, sinusoidal_pos_embds=False,
        ),
        "electra": transformers.ElectraConfig(**SIZES, embedding_size=16),
        "albert": transformers.AlbertConfig(**SIZES, embedding_size=16),
        "gpt2": transformers.GPT2Config(
            n_embd=32, n_layer=1, n_head=2, n_positions=70, vocab_size=200, bos_token_id=2,
            eos_token_id=3,
        ),
    }  # fmt: skip


@pytest.fixture(scope="session")
def build(tiny_model: Path, tmp_path_factory):
    """A sentence-transformers model of a family, its weights far from the usual small ones, so that
    attention looks at some tokens more than at others."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoModel, AutoTokenizer

    def make(family: str = "bert", mode="mean", more=(), **changes) -> SentenceTransformer:
        torch.manual_seed(5)
        config = configurations()[family]
        for key, value in changes.items():
            setattr(config, key, value)
        network = AutoModel.from_config(config)
        for weights in network.parameters():
            torch.nn.init.normal_(weights, mean=0.0 if weights.ndim > 1 else 0.5, std=0.2)
        folder = tmp_path_factory.mktemp(family)
        network.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
        transformer = Transformer(str(folder), max_seq_length=64)
        modules = [transformer, Pooling(32, pooling_mode=mode), *more]
        return SentenceTransformer(modules=modules, device="cpu").eval()

    return make


def padded(model, texts):
    """What the library computes, with a graph."""
    return model(model.preprocess(list(texts)))["sentence_embedding"]


def gradients(model, vectors) -> dict:
    """Of a weighted sum of the vectors, by name of the weights."""
    import torch

    model.zero_grad()
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(3))
    (vectors * weights).sum().backward()
    return {
        name: values.grad.clone()
        for name, values in model.named_parameters()
        if values.grad is not None
    }


def assert_same(model, texts=TEXTS):
    flat = Packed(model)
    ours = flat.forward(flat.token_ids(texts, "document"), training=False)
    theirs = padded(model, texts)
    np.testing.assert_allclose(ours.detach(), theirs.detach(), atol=1e-5)
    mine, expected = gradients(model, ours), gradients(model, theirs)
    assert mine.keys() == expected.keys()
    for name, values in expected.items():
        size = max(1.0, float(values.abs().max()))
        np.testing.assert_allclose(mine[name] / size, values / size, atol=1e-5, err_msg=name)


FAMILIES = ["bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "electra"]


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_and_all_gradients_are_those_of_the_padded_model(build, family):
    model = build(family)
    assert packable(model) == ""
    assert_same(model)


@pytest.mark.parametrize("mode", [*MODES[1:], ("cls", "mean")])
def test_every_pooling_is_the_libraries(build, mode):
    assert_same(build("bert", mode))


def test_modules_after_the_pooling_are_applied(build):
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize

    torch.manual_seed(1)
    model = build("bert", more=[Dense(32, 7), Normalize()])
    assert_same(model)
    vectors = encode(model, TEXTS, "query")
    assert vectors.shape == (len(TEXTS), 7)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_texts_of_many_lengths_share_products_without_seeing_each_other(build):
    """Lengths 3 to 64, so that groups hold one, equal and unequal lengths."""
    texts = [" ".join(["mud", "tow", "arm"] * 21)[: 4 * count] for count in (*range(1, 62), 7, 8)]
    assert_same(build("mpnet"), texts)


def test_one_text_and_one_token(build):
    model = build("bert")
    flat = Packed(model)
    for ids in ([7], [2, 9, 3]):
        import torch

        mask = torch.ones(1, len(ids), dtype=torch.long)
        theirs = model({"input_ids": torch.tensor([ids]), "attention_mask": mask})
        [ours] = flat.forward([ids], training=False)
        np.testing.assert_allclose(
            ours.detach(), theirs["sentence_embedding"][0].detach(), atol=1e-5
        )
    assert flat.forward([], training=False).shape == (0, 32)


def test_the_order_of_the_texts_is_kept_and_repeats_are_equal(build):
    model = build("bert")
    flat = Packed(model)
    ids = flat.token_ids(TEXTS, "document")
    vectors = flat.forward(ids, training=False).detach().numpy()
    backwards = flat.forward(ids[::-1], training=False).detach().numpy()
    assert (backwards[::-1] == vectors).all()
    assert (vectors[2] == vectors[6]).all()
    assert np.abs(vectors[0] - vectors[4]).max() > 0.01


def test_a_repeated_text_gets_the_gradient_of_both(build):
    model = build("bert")
    flat = Packed(model)
    ids = flat.token_ids(["the mud"], "document")
    twice = gradients(model, flat.forward(ids * 2, training=False).sum(0, keepdim=True))
    once = gradients(model, flat.forward(ids, training=False) * 2)
    for name, values in once.items():
        np.testing.assert_allclose(twice[name], values, atol=1e-4, err_msg=name)


# ---- attention, by numbers


@pytest.mark.parametrize(("biased", "dropout"), [(False, 0.0), (True, 0.0), (True, 0.25)])
def test_the_gradients_of_attention_are_the_numerical_ones(biased, dropout):
    import torch

    from embedtune.embed.packed_attention import attend, group_texts

    lengths, heads = [9, 9, 5, 4, 2, 1], 2
    groups = group_texts(lengths, heads, torch.device("cpu"))
    assert {group.places is None for group in groups} == {True, False}
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(30, 3 * 4, generator=draw, dtype=torch.float64, requires_grad=True)]
    if biased:
        inputs.append(torch.randn(2, 9, 9, generator=draw, dtype=torch.float64, requires_grad=True))

    def compute(qkv, bias=None):
        torch.manual_seed(4)  # the same probabilities are dropped each time
        return attend(qkv, groups, heads=heads, bias=bias, dropout=dropout)

    assert torch.autograd.gradcheck(compute, inputs)


def test_what_is_dropped_is_as_frequent_as_said_and_the_mean_stays():
    import torch

    from embedtune.embed.packed_attention import keep_mask

    torch.manual_seed(0)
    mask = keep_mask(torch.empty(1000, 1001), 0.1)
    assert mask.unique().tolist() == pytest.approx([0, 1 / 0.9], abs=1e-4)
    assert float((mask == 0).double().mean()) == pytest.approx(0.1, abs=0.002)
    assert float(mask.double().mean()) == pytest.approx(1, abs=0.002)
    columns = (mask == 0).double().mean(0)  # every place alike: binomial of 1,000 draws
    assert float(columns.std()) == pytest.approx((0.1 * 0.9 / 1000) ** 0.5, rel=0.1)


# ---- dropout


def draws(flat: Packed, ids, seed: int, **changes):
    import torch

    torch.manual_seed(seed)
    return flat.forward(ids, training=True, **changes).detach().numpy()


def test_hidden_states_are_dropped_in_training_from_torchs_generator(build):
    model = build("bert", hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.0)
    flat = Packed(model)
    ids = flat.token_ids(TEXTS, "document")
    plain = flat.forward(ids, training=False).detach().numpy()
    assert (draws(flat, ids, 1) == draws(flat, ids, 1)).all()
    assert np.abs(draws(flat, ids, 1) - draws(flat, ids, 2)).max() > 0.01
    many = np.mean([draws(flat, ids, seed) for seed in range(300)], axis=0)
    assert np.abs(many - plain).max() < np.abs(draws(flat, ids, 1) - plain).max()
    assert (flat.forward(ids, training=False).detach().numpy() == plain).all()


def test_attention_probabilities_are_dropped_only_when_asked(build):
    model = build("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.2)
    flat = Packed(model)
    ids = flat.token_ids(TEXTS, "document")
    assert (draws(flat, ids, 1) == draws(flat, ids, 2)).all()
    dropping = Packed(model, attention_dropout=True)
    assert np.abs(draws(dropping, ids, 1) - draws(dropping, ids, 2)).max() > 0.01


def test_repeats_share_what_is_dropped_unless_told_otherwise(build):
    flat = Packed(build("bert", hidden_dropout_prob=0.2))
    ids = flat.token_ids(["the mud", "the mud"], "query")
    first, second = draws(flat, ids, 1)
    assert (first == second).all()
    first, second = draws(flat, ids, 1, share=False)
    assert np.abs(first - second).max() > 0.01


# ---- weights


def test_the_next_pass_sees_what_an_optimiser_did_and_the_model_is_as_before(build):
    import torch

    model = build("roberta")
    names = list(model.state_dict())
    flat = Packed(model, precision="bf16")
    ids = flat.token_ids(TEXTS, "document")
    optimiser = torch.optim.SGD(model.parameters(), lr=0.01)
    before = flat.forward(ids, training=True)
    before.square().sum().backward()
    optimiser.step()
    after = Packed(model).forward(ids, training=False).detach()
    assert (after - before.detach()).abs().max() > 0.01
    np.testing.assert_allclose(after, padded(model, TEXTS).detach(), atol=1e-5)
    assert list(model.state_dict()) == names
    assert {weights.dtype for weights in model.parameters()} == {torch.float32}


def test_frozen_lower_layers_get_no_gradient_and_keep_nothing_in_memory(build):
    import torch

    model = build("bert", num_hidden_layers=4)
    flat = Packed(model)
    ids = flat.token_ids(TEXTS, "document")

    def kept() -> int:
        sizes = []

        def note(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            flat.forward(ids, training=False)
        return sum(sizes)

    network = model[0].model
    everything = kept()
    for part in (network.embeddings, *network.encoder.layer[:3]):
        part.requires_grad_(False)
    assert kept() < everything / 3
    found = gradients(model, flat.forward(ids, training=False))
    assert found
    assert all("encoder.layer.3" in name for name in found)
    assert found.keys() == gradients(model, padded(model, TEXTS)).keys()


def test_lora_weights_are_trained_like_in_the_padded_model(build):
    import peft
    import torch

    model = build("bert")
    model[0].model.add_adapter(
        peft.LoraConfig(r=2, target_modules=["query", "value", "dense"], lora_dropout=0.0)
    )
    for name, weights in model.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(weights, std=0.3)
    assert packable(model) == ""
    assert_same(model)
    assert all("lora" in name for name in gradients(model, padded(model, TEXTS)))
    narrow = Packed(model, precision="bf16")
    ours = narrow.forward(narrow.token_ids(TEXTS, "document"), training=False)
    assert torch.cosine_similarity(ours, padded(model, TEXTS)).min() > 0.999


def test_the_callers_autocast_does_not_change_the_precision(build):
    import torch

    flat = Packed(build("bert"))
    ids = flat.token_ids(TEXTS, "document")
    with torch.autocast("cpu", torch.bfloat16):
        inside = flat.forward(ids, training=False)
    assert (inside == flat.forward(ids, training=False)).all()


# ---- what the model reads


def test_token_ids_are_those_of_the_padded_model(build):
    model = build("bert")
    model.prompts = {"query": "how: ", "passage": "report: "}
    for role, prompt in (("query", "how: "), ("document", "report: ")):
        features = model.preprocess(list(TEXTS), prompt=prompt)
        expected = [
            [int(number) for number, real in zip(*row, strict=True) if real]
            for row in zip(features["input_ids"], features["attention_mask"], strict=True)
        ]
        assert [list(ids) for ids in token_ids(model, TEXTS, role)] == expected
    assert max(len(ids) for ids in token_ids(model, TEXTS, "query")) == 64
    model.prompts, model.default_prompt_name = {"other": "a "}, "other"
    assert token_ids(model, ["mud"], "query") == token_ids(model, ["mud"], "document")
    assert len(token_ids(model, ["mud"], "query")[0]) == 4
    assert token_ids(model, [], "query") == []


def test_texts_are_tokenised_once(build, monkeypatch):
    model = build("bert")
    flat = Packed(model)
    first = flat.token_ids(TEXTS, "query")
    monkeypatch.setattr(model[0], "processor", None)
    assert flat.token_ids(TEXTS[::-1], "query") == first[::-1]


# ---- models that it does not know


def unknown_models(build):
    import torch
    from sentence_transformers.sentence_transformer.modules import Pooling

    yield "AlbertModel", build("albert")
    yield "GPT2Model", build("gpt2")
    yield "relative_key", build("bert", position_embedding_type="relative_key")
    yield "decoder", build("bert", is_decoder=True)
    hooked = build("bert")
    hooked[0].model.encoder.layer[1].register_forward_hook(lambda *_: None)
    yield "hooks", hooked
    without = build("bert")
    without[1] = Pooling(32, include_prompt=False)
    yield "prompt", without
    yield "32-bit", build("bert").to(torch.float64)


def test_a_model_it_does_not_know_is_named_and_encoded_by_the_library(build):
    seen = []
    for reason, model in unknown_models(build):
        assert reason in packable(model)
        with pytest.raises(ConfigError, match=reason):
            Packed(model)
        theirs = model.encode(list(TEXTS))
        np.testing.assert_allclose(encode(model, TEXTS, "document"), theirs, atol=1e-4)
        seen.append(reason)
    assert len(seen) == 7


def test_encoding_in_small_batches_and_cut_dimensions(build):
    model = build("bert")
    whole = encode(model, TEXTS, "document")
    np.testing.assert_allclose(whole, model.encode(list(TEXTS)), atol=1e-5)
    np.testing.assert_allclose(encode(model, TEXTS, "document", batch_size=1), whole, atol=1e-5)
    model.truncate_dim = 5
    np.testing.assert_allclose(encode(model, TEXTS, "document"), whole[:, :5], atol=1e-5)


# ---- the real model


@pytest.mark.model
def test_minilm_gives_the_libraries_vectors_and_gradients():
    from embedtune.embed.loading import load_sentence_transformer

    model = load_sentence_transformer("sentence-transformers/all-MiniLM-L6-v2", device="cpu").eval()
    texts = [
        *TEXTS,
        "证券公司应当保护投资者的合法权益",
        "A [SEP] written in a text is no control token [PAD] [MASK]",
        *(" ".join(itertools.islice(itertools.cycle(TEXTS[4].split()), count)) for count in
          (1, 5, 40, 41, 43, 120, 400)),
    ]  # fmt: skip
    theirs = model.encode(texts)
    ours = encode(model, texts, "document")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    narrow = encode(model, texts, "document", precision="bf16")
    cosines = (narrow * theirs).sum(1) / np.linalg.norm(narrow, axis=1)
    assert cosines.min() > 0.9999
    assert cosines.min() < 1 - 1e-7  # it really was narrow
    assert_same(model, texts[:14])
