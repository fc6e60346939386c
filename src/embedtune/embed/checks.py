"""What a model folder must pass before anything in it is loaded.

Formats without a checksum load damaged weights without complaint, and a folder with a file
missing loads as another model than it was; so the files are read first.
"""

import functools
import json
import re
import struct
from pathlib import Path, PurePosixPath
from typing import Any

from embedtune.errors import ConfigError, IntegrityError
from embedtune.files import read_json, read_text, sha256_of, visible, write_text
from embedtune.run import MANIFEST

CHECKSUMS = "SHA256SUMS"  # in a model folder, as `sha256sum -c` reads it
EXPORTED = "embedtune_onnx.json"  # in a folder that holds a graph
CHECKSUM = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")
NOT_LISTED = (CHECKSUMS, MANIFEST, "README.md")  # written later, or the user's to change
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SHA256 = re.compile(r"[0-9a-f]{64}")
# what sentence-transformers leaves in a folder beside the list of modules
MODULE_FOLDER = re.compile(r"\d+_[A-Z]\w*")
OWN_FILES = ("config_sentence_transformers.json", "sentence_bert_config.json")


@functools.cache
def _hash_of_version(path: Path, changed: int) -> str:
    return sha256_of(path)


def hash_of(path: Path) -> str:
    """SHA-256 of a file, worked out once as long as the file does not change."""
    return _hash_of_version(path, path.stat().st_mtime_ns)


def check_model_folder(
    folder: Path, *, trust_remote_code: bool = False, modules_required: bool = True
) -> None:
    """Refuse a folder that would load as another model than it was, or run foreign code.

    Args:
        modules_required: A plain encoder is refused too: its pooling is not known.

    Raises:
        ConfigError: A plain encoder, where modules are required.
        IntegrityError: Names the file and what is wrong with it.
    """
    for module_folder, module_type in _modules(folder, modules_required):
        if not trust_remote_code and not module_type.startswith("sentence_transformers."):
            raise IntegrityError(
                f"{folder / 'modules.json'}: wants the foreign code {visible(module_type)}; "
                "not run unless trust_remote_code is set for this revision"
            )
        if not module_folder.is_dir() and not module_type.endswith(".Normalize"):
            raise IntegrityError(
                f"{module_folder}: missing although modules.json names it; "
                "copy the whole model folder"
            )
        if module_folder.is_dir():
            _check_weights(module_folder)
    config_file = folder / "config.json"
    config = read_json_object(config_file) if config_file.is_file() else {}
    if "auto_map" in config and not trust_remote_code:
        raise IntegrityError(
            f"{config_file}: the model wants its own Python code (auto_map); not run unless "
            "trust_remote_code is set for this revision"
        )
    _check_vocabulary(folder)
    _check_manifest(folder)
    check_checksums(folder)


def write_checksums(folder: Path) -> None:
    """Leave ``SHA256SUMS`` in a model folder, over all that is in it but its card. Called last."""
    names = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    lines = [
        f"{sha256_of(path)}  {name}\n"
        for name, path in sorted(names.items())
        if name not in NOT_LISTED and not any(part.startswith(".") for part in name.split("/"))
    ]
    write_text(folder / CHECKSUMS, "".join(lines))


def check_checksums(folder: Path) -> None:
    """Compare the files that ``SHA256SUMS`` names, where there is one; others may lie beside.

    Raises:
        IntegrityError: Names the file that is missing or differs.
    """
    listed = folder / CHECKSUMS
    if not listed.is_file():
        return
    try:
        lines = read_text(listed).splitlines()
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{listed}: cannot be read ({visible(error)})") from error
    for number, line in enumerate(lines, 1):
        match = CHECKSUM.fullmatch(line)
        if match is None:
            raise IntegrityError(
                f"{listed}:{number}: expected a SHA-256 and a file name, found {visible(line)!r}"
            )
        path = _inside(folder, match[2], listed)
        if not path.is_file():
            raise IntegrityError(f"{path}: missing although {listed} names it; copy it again")
        if hash_of(path) != match[1]:
            raise IntegrityError(
                f"{path}: damaged or changed, its hash is not that of {listed}; copy it again, "
                f"or delete {listed.name} where the change was meant"
            )


def is_plain_encoder(folder: Path) -> bool:
    """Whether a folder holds a transformers model that never was one of sentence-transformers."""
    if not (folder / "config.json").is_file() or (folder / "modules.json").exists():
        return False
    names = [path.name for path in folder.iterdir()]
    return not any(name in OWN_FILES or MODULE_FOLDER.fullmatch(name) for name in names)


def _modules(folder: Path, required: bool) -> list[tuple[Path, str]]:
    """(folder, type) of each module, in order; names that leave the folder are refused."""
    file = folder / "modules.json"
    if not file.is_file():
        plain = is_plain_encoder(folder)
        if (folder / EXPORTED).is_file():
            raise ConfigError(
                f"{folder}: an exported model, which can only encode; name the model that it was "
                f"made from ({EXPORTED} tells which)"
            )
        if required and plain:
            raise ConfigError(
                f"{folder}: no modules.json: a plain encoder, whose pooling is not known; name one "
                "in model.pooling (mean, cls, max, lasttoken or weightedmean), or give a folder "
                "saved by sentence-transformers"
            )
        if not plain:
            raise IntegrityError(
                f"{folder}: no modules.json, so pooling, length and normalising are unknown and "
                "would be guessed; expected a folder saved by sentence-transformers"
            )
        return [(folder, "sentence_transformers.models.Transformer")]
    try:
        entries = read_json(file)
        named = [(str(entry["path"]), str(entry["type"])) for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{file}: damaged ({visible(error)})") from error
    modules = []
    for path, kind in named:
        modules.append((_inside(folder, path, file), kind))
    return modules


def _inside(folder: Path, name: str, file: Path) -> Path:
    """What ``file`` names in the folder; names that leave it are refused."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", name):
        raise IntegrityError(f"{file}: the path {visible(name)!r} leaves the folder")
    return folder / name


def dimension_in(folder: Path) -> int | None:
    """Length of the vectors, as the folder's configuration says without loading the model; None
    when it does not say."""
    dimension = None
    for module, kind in _modules(folder, required=False):
        if kind.endswith(".StaticEmbedding") and (module / "model.safetensors").is_file():
            tensors = safetensors_header(module / "model.safetensors")
            shape = tensors.get("embedding.weight", {}).get("shape", ())
            dimension = shape[1] if len(shape) == 2 else None
        if not kind.endswith((".Pooling", ".Dense")) or not (module / "config.json").is_file():
            continue
        config = read_json_object(module / "config.json")
        if kind.endswith(".Dense"):
            dimension = config.get("out_features")
        else:
            size = config.get("embedding_dimension", config.get("word_embedding_dimension"))
            modes = [key for key, on in config.items() if key.startswith("pooling_mode_") and on]
            single = isinstance(config.get("pooling_mode"), str) or len(modes) == 1
            dimension = size if single else None  # several poolings are put side by side
    return dimension if isinstance(dimension, int) else None


def read_json_object(path: Path) -> dict[str, Any]:
    """A model's own JSON file; whatever is wrong with it is named with the path."""
    try:
        value = read_json(path)
    except (ValueError, OSError) as error:
        raise IntegrityError(f"{path}: cannot be read ({visible(error)})") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def _check_weights(folder: Path) -> None:
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights:
        safetensors_header(path)
        target = path.resolve().name  # the hub cache names blobs by their hash
        if path.is_symlink() and SHA256.fullmatch(target):
            resolved = path.resolve()
            if hash_of(resolved) != target:
                raise IntegrityError(f"{path}: content does not match its hash; fetch it again")
    pickles = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in PICKLES and path.name != "training_args.bin"
    ]
    if pickles and not weights:
        raise IntegrityError(
            f"{pickles[0]}: pickled weights can run code when loaded and are refused; convert "
            "them to model.safetensors"
        )


def safetensors_header(path: Path) -> dict[str, Any]:
    """Tensor name -> {dtype, shape, data_offsets}, after checking that the file is whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if size == 0:
            raise IntegrityError(f"{path}: empty file where weights are due; copy it again")
        if start.startswith(b"version "):
            raise IntegrityError(
                f"{path}: a text pointer of a large-file store instead of the "
                "weights; fetch the real file (git lfs pull)"
            )
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if not 2 <= length <= size - 8:
            raise IntegrityError(f"{path}: not a safetensors file, or cut short ({size} bytes)")
        try:
            header = json.loads(file.read(length))
            tensors = {name: facts for name, facts in header.items() if name != "__metadata__"}
            end = max((facts["data_offsets"][1] for facts in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{path}: damaged header ({visible(error)})") from error
    if 8 + length + end != size:
        raise IntegrityError(
            f"{path}: cut short or damaged, {size} bytes where its own header "
            f"says {8 + length + end}; copy it again"
        )
    return tensors


def _check_manifest(folder: Path) -> None:
    """Weights that a training left have the hashes that it wrote down after them."""
    for place in (folder, folder.parent):  # alone, or in the folder of a stage
        try:
            manifest = read_json(place / MANIFEST)
            outputs = {str(name): str(digest) for name, digest in manifest["outputs"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # there is none, or it is another program's
        for name, digest in outputs.items():
            path = place / name
            ours = path.suffix == ".safetensors" and path.is_relative_to(folder)
            if ours and path.is_file() and hash_of(path) != digest:
                raise IntegrityError(
                    f"{path}: changed after the training ended (its hash is not that of "
                    f"{place / MANIFEST}); copy it again, or train again"
                )


def _check_vocabulary(folder: Path) -> None:
    """The tokenizer must fit the embedding table; a foreign one gives plausible nonsense."""
    weights, tokenizer = folder / "model.safetensors", folder / "tokenizer.json"
    if not weights.is_file() or not tokenizer.is_file():
        return
    rows = [
        int(facts["shape"][0])
        for name, facts in safetensors_header(weights).items()
        if name.endswith(("word_embeddings.weight", "embed_tokens.weight", "tok_embeddings.weight",
                          "embedding.weight"))
    ]  # fmt: skip
    if not rows:
        return
    described = read_json_object(tokenizer)
    vocabulary = described.get("model", {}).get("vocab", ())
    ids = (
        [id for id in vocabulary.values() if isinstance(id, int)]
        if isinstance(vocabulary, dict)
        else range(len(vocabulary))
    )
    added = [token.get("id", 0) for token in described.get("added_tokens", ())]
    size = 1 + max((*ids, *added), default=0)
    # tables are often padded by a little, for speed
    if size > rows[0] or size < 0.9 * rows[0]:
        raise IntegrityError(
            f"{folder}: the tokenizer knows {size} tokens, the embedding table has {rows[0]} "
            "rows; the tokenizer is of another model"
        )
