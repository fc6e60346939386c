"""A model as one graph: token ids in, embeddings out, pooling and normalising inside.

Attention is written as one operator (opset 23), which ONNX Runtime and OpenVINO compute faster
than the products and sums it is made of.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedtune.embed.checks import hash_of
from embedtune.embed.loading import longest_text
from embedtune.embed.local import dimension_of, longest_of
from embedtune.embed.onnx import Engine, Exported, GraphPrecision
from embedtune.embed.packed import prompt_of
from embedtune.embed.tokens import NO_LIMIT
from embedtune.errors import ConfigError
from embedtune.files import visible, write_json

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OPSET = 23  # the first with attention as one operator
ONNX = "model.onnx"
OPENVINO = "model.xml"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "sentence_embedding"
LARGEST_FILE = 1_800_000_000  # bytes of weights that still go into the graph's own file
WEIGHTED = ["MatMul", "Gemm", "Gather"]  # what is made int8: products with weights, and tables
EXAMPLES = ("a first text", "another text, which is somewhat longer than the first 证券")


def exportable(model: "SentenceTransformer") -> str:
    """Empty when a graph can give the vectors that ``model`` gives; else the reason why not."""
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Dropout,
        LayerNorm,
        Normalize,
        Pooling,
        StaticEmbedding,
        Transformer,
    )

    modules = list(model)
    if isinstance(modules[0], StaticEmbedding):
        return "it is a static model, which is as fast as it is"
    if type(modules[0]) is not Transformer:
        return f"its first module is a {type(modules[0]).__name__}"
    for module in modules[1:]:
        if type(module) not in (Dense, Dropout, LayerNorm, Normalize, Pooling):
            return f"it has a module {type(module).__name__}"
        if isinstance(module, Pooling) and not module.include_prompt:
            return "its pooling leaves out the prompt"
    way = modules[0].modality_config.get("text", {})
    if way != {"method": "forward", "method_output_name": "last_hidden_state"}:
        return "it does not read plain text only"
    if not getattr(model.tokenizer, "is_fast", False):
        return "its tokenizer has no tokenizer.json"
    return ""


def export_onnx(model: "SentenceTransformer", path: Path) -> tuple[str, ...]:
    """Write the graph of ``model`` to ``path``, in fp32, for any number of texts of any length.

    Returns:
        The inputs it has, each (texts, tokens) int64.

    Raises:
        ConfigError: The model has parts that no graph is made of.
    """
    if reason := exportable(model):
        raise ConfigError(f"this model cannot be exported: {reason}")
    import torch

    model = model.float().eval()
    tokenizer, network = model.tokenizer, model[0].model
    known = [name for name in INPUTS if name in tokenizer.model_input_names]
    names = tuple(dict.fromkeys((*INPUTS[:2], *known)))
    tokens = tokenizer(list(EXAMPLES), padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    example = {INPUTS[0]: ids, INPUTS[1]: mask, INPUTS[2]: torch.zeros_like(ids)}
    dimension = dimension_of(model)

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.modules_behind = network, torch.nn.ModuleList(list(model)[1:])

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            given = dict(zip(names, inputs, strict=True))
            features: dict[str, Any] = {
                "token_embeddings": self.network(**given, return_dict=True).last_hidden_state,
                "attention_mask": given["attention_mask"],
            }
            for module in self.modules_behind:
                features = module(features)
            return features[OUTPUT][:, :dimension]

    free = torch.export.Dim.DYNAMIC
    with _quiet(), torch.no_grad():
        try:
            program = torch.onnx.export(
                Whole(),
                tuple(example[name].to(model.device) for name in names),
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=[OUTPUT],
                dynamic_shapes=(tuple({0: free, 1: free} for _ in names),),
                verbose=False,
            )
        except ImportError as error:
            raise ConfigError(
                f"export needs onnx and onnxscript ({error}); pip install 'embedtune[onnx]'"
            ) from error
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"this model cannot be exported: no graph can be made of its "
                f"{type(network).__name__} ({visible(error, 200)})"
            ) from error
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # lines of code, with the folders of this machine
        large = sum(own.nbytes for own in model.parameters()) > LARGEST_FILE
        program.save(str(path), external_data=large)
    return names


def quantise(path: Path, out: Path) -> None:
    """The graph with int8 weights; what it multiplies them with is made int8 as it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            path, out, weight_type=QuantType.QInt8, op_types_to_quantize=WEIGHTED,
            per_channel=True,
        )  # fmt: skip


def to_openvino(path: Path, out: Path) -> None:
    """The graph in OpenVINO's own form, two files."""
    try:
        import openvino
    except ImportError as error:
        raise ConfigError("needs openvino; pip install 'embedtune[openvino]'") from error
    openvino.save_model(openvino.Core().read_model(str(path)), str(out), compress_to_fp16=False)


def describe(
    model: "SentenceTransformer",
    folder: Path,
    graph: str,
    *,
    source: str,
    revision: str,
    engine: Engine,
    precision: GraphPrecision,
    inputs: tuple[str, ...],
    similarity: Any,  # as the embedder has it
    matryoshka_dims: tuple[int, ...] = (),
) -> Exported:
    """What a reader of ``folder`` has to know; the graph's files are there already."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    transformer, tokenizer = model[0], model.tokenizer
    longest = min(longest_text(model) or NO_LIMIT, longest_of(model))
    pooling = next((own.pooling_mode for own in model if isinstance(own, Pooling)), "none")
    files = [path for path in folder.glob(f"{Path(graph).stem}.*") if path.is_file()]
    return Exported(
        source=source,
        revision=revision,
        engine=engine,
        precision=precision,
        graph=graph,
        sha256={path.name: hash_of(path) for path in sorted(files)},
        inputs=inputs,
        dimension=dimension_of(model),
        max_tokens=longest,
        lengths={
            "query": min(transformer.query_length or longest, longest),
            "document": min(transformer.document_length or longest, longest),
        },
        prompts={"query": prompt_of(model, "query"), "document": prompt_of(model, "document")},
        control_tokens_as_text=bool(getattr(tokenizer, "split_special_tokens", False)),
        pad_token=tokenizer.pad_token_id or 0,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        pooling=pooling if isinstance(pooling, str) else "+".join(pooling),
        normalised=any(isinstance(own, Normalize) for own in model),
        similarity=similarity,
        matryoshka_dims=matryoshka_dims,
    )


def save_tokenizer(model: "SentenceTransformer", folder: Path) -> None:
    """The tokenizer as other programs load it, and the length that the model reads."""
    tokenizer = model.tokenizer
    split = getattr(tokenizer, "split_special_tokens", False)
    tokenizer.split_special_tokens = False  # ours, and no property of the model
    try:
        tokenizer.save_pretrained(str(folder))
    finally:
        tokenizer.split_special_tokens = split
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest_of(model)})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters tell of packages that are not needed, and of their own plans."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "root")]
    levels = [own.level for own in loggers]
    try:
        for own in loggers:
            own.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for own, level in zip(loggers, levels, strict=True):
            own.setLevel(level)
