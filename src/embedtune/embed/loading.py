"""Folders to models that were checked before and after loading."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from embedtune.embed.checks import check_model_folder, is_plain_encoder, read_json_object
from embedtune.embed.models import ResolvedModel, resolve_model
from embedtune.embed.packed_layers import FAMILIES, read_encoder
from embedtune.errors import ConfigError, IntegrityError, ResourceError
from embedtune.files import visible

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

PoolingMode = Literal["mean", "cls", "max", "lasttoken", "weightedmean"]
# how configurations named it before version 6 of sentence-transformers
POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def prepare_threads() -> None:
    """Threads that suit a shared machine. Call before torch is imported for the full effect.

    OpenMP's spinning threads collapse when another process holds a core, so they wait passively;
    and there are no more of them than the cores this process may use. Variables that are set
    already are respected.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not os.environ.get("OMP_NUM_THREADS"):
        import torch

        if torch.get_num_threads() > usable_cores():
            torch.set_num_threads(usable_cores())


def usable_cores() -> int:
    """Cores this process may use: affinity and the container's quota counted in."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):
        pass
    return cores


def choose_device(device: str = "auto") -> str:
    """``device``, or the best one this machine has."""
    if device != "auto":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def load_sentence_transformer(
    name: str,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    pooling: PoolingMode | Literal["auto"] = "auto",
) -> "SentenceTransformer":
    """The model of that name or folder, checked before and after loading. Never asks a network
    for anything beyond what `resolve_model` fetched.

    Args:
        pooling: Of a plain encoder, which has none: that head and normalising are put on it.
            Models that sentence-transformers saved keep their own.

    Raises:
        ConfigError: A plain encoder, and no pooling named.
        IntegrityError: Files are damaged, missing or of another model; weights are not finite;
            or two different texts get one vector.
    """
    return load_resolved(
        resolve_model(name), device=device, trust_remote_code=trust_remote_code, pooling=pooling
    )


def load_resolved(
    model: ResolvedModel,
    *,
    device: str = "auto",
    trust_remote_code: bool = False,
    pooling: PoolingMode | Literal["auto"] = "auto",
) -> "SentenceTransformer":
    """As `load_sentence_transformer`, for a model that is resolved already."""
    check_model_folder(
        model.path, trust_remote_code=trust_remote_code, modules_required=pooling == "auto"
    )
    modules = None
    prepare_threads()
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    logger.info("loading %s from the %s (%s)", model.name, model.source, model.path)
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        if pooling != "auto" and is_plain_encoder(model.path):
            modules = _with_head(model.path, pooling, trust_remote_code)
        loaded = SentenceTransformer(
            str(model.path) if modules is None else None,
            modules=modules,
            device=choose_device(device),
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(f"model {model.name}: too large for the memory there is") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
        raise IntegrityError(
            f"{model.path}: cannot be loaded as a model ({type(error).__name__}: "
            f"{visible(error, 200)})"
        ) from error
    finally:
        if bars:
            transformers_logging.enable_progress_bar()
    read_control_tokens_as_text(loaded)
    _self_test(loaded, model)
    return loaded


def _with_head(folder: Path, pooling: PoolingMode, trust_remote_code: bool) -> list[Any]:
    """The modules of an embedding model: the encoder, that pooling, vectors of length 1."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    own = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    with torch.random.fork_rng():
        torch.manual_seed(0)  # parts that the file has no weights for (BERT's pooler) are drawn
        transformer = Transformer(
            str(folder), model_kwargs=own, processor_kwargs=own, config_kwargs=own
        )
    limit = _positions(transformer.model)
    if limit is not None:
        transformer.max_seq_length = min(transformer.max_seq_length or limit, limit)
    return [
        transformer,
        Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling),
        Normalize(),
    ]


def own_pooling(folder: Path) -> str | None:
    """How the model in a folder makes one vector of its tokens' vectors, as its configuration
    says; None where it does not say, or says several."""
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return None
    config = read_json_object(file)
    if isinstance(named := config.get("pooling_mode"), str):
        return named
    modes = [mode for key, mode in POOLING_KEYS.items() if config.get(key) is True]
    return modes[0] if len(modes) == 1 else None


def repool(model: "SentenceTransformer", pooling: PoolingMode, name: str) -> None:
    """Give the model that pooling in the place of its own; what follows stays as it is.

    Raises:
        ConfigError: It has none to replace (static models), or what follows needs vectors of
            another size.
    """
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    place = next((i for i, module in enumerate(model) if isinstance(module, Pooling)), None)
    if place is None:
        raise ConfigError(f"model {visible(name)}: has no pooling that {pooling} could replace")
    before = model[place]
    after = Pooling(
        before.embedding_dimension, pooling_mode=pooling, include_prompt=before.include_prompt
    )
    sizes = {one.get_embedding_dimension() for one in (before, after)}
    if len(sizes) > 1 and any(isinstance(module, Dense) for module in model):
        raise ConfigError(
            f"model {visible(name)}: its own pooling puts several side by side, and a layer behind "
            f"needs them all; {pooling} cannot replace it"
        )
    model[place] = after


def longest_text(model: "SentenceTransformer") -> int | None:
    """The most tokens that ``model`` can read, whatever its limit is set to; None: no such bound
    is known."""
    return _positions(getattr(model[0], "model", None))


def _positions(network: Any) -> int | None:  # a transformers model, or none
    if type(network).__name__ in FAMILIES:
        return read_encoder(network).max_tokens
    count = getattr(getattr(network, "config", None), "max_position_embeddings", None)
    return count if isinstance(count, int) and count > 0 else None


def read_control_tokens_as_text(loaded: "SentenceTransformer") -> None:
    """``[SEP]`` or ``[PAD]`` written in a document are characters like any other, so that no text
    can steer its own vector. Models whose own prompts hold control tokens stay as they are."""
    tokenizer = getattr(loaded, "tokenizer", None)
    if not hasattr(tokenizer, "split_special_tokens"):
        return
    control = tokenizer.all_special_tokens
    tokenizer.split_special_tokens = not any(
        token in prompt for prompt in loaded.prompts.values() for token in control
    )


def _self_test(loaded: "SentenceTransformer", model: ResolvedModel) -> None:
    """Damaged weights load without complaint and give NaN; better to find out here."""
    import numpy as np
    import torch
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    for parameter_name, values in loaded.named_parameters():
        if not torch.isfinite(values).all():
            raise IntegrityError(
                f"{model.path}: the weights {parameter_name} hold NaN or infinite "
                "numbers; the file is damaged"
            )
    texts = ["embedtune loads a model", "证券 12 fish"]
    if isinstance(loaded[0], StaticEmbedding):  # which may know none of these words
        words = sorted(loaded[0].tokenizer.get_vocab())
        texts += words[:: max(1, len(words) // 20)]
    vectors = np.asarray(loaded.encode(texts, show_progress_bar=False), dtype=np.float32)
    if not np.isfinite(vectors).all() or not np.abs(vectors).sum(axis=1).all():
        raise IntegrityError(
            f"{model.path}: gives vectors that are NaN, infinite or zero; the weights are damaged"
        )
    if np.allclose(vectors, vectors[0], atol=1e-6):
        raise IntegrityError(
            f"{model.path}: gives the same vector for different texts; the weights are damaged"
        )
