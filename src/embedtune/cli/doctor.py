"""The command doctor: what this machine has, and what is missing."""

import os
import platform
import shutil
from pathlib import Path
from typing import Annotated

import typer

from embedtune.cli.console import emit
from embedtune.cli.options import Json

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def doctor(
    model: Annotated[str, typer.Option("--model", help="A base model to look for.")] = MODEL,
    json: Json = False,
) -> int:
    """Check Python, torch, the processor, models, endpoints and disk.

    Example: embedtune doctor --model BAAI/bge-base-en-v1.5
    """
    from embedtune.config import load_environment

    load_environment(Path.cwd())
    findings = [_python(), _torch(), _model(model), _endpoint(), _disk()]
    failed = [name for name, good, _ in findings if good is False]
    emit(
        {"ok": not failed, "checks": [{"name": n, "ok": g, "found": t} for n, g, t in findings]},
        as_json=json,
        text=lambda: "\n".join(
            f"{'ok  ' if good else 'note' if good is None else 'FAIL'}  {name}: {found}"
            for name, good, found in findings
        ),
    )
    return 2 if failed else 0


def _python() -> tuple[str, bool | None, str]:
    return "python", True, f"{platform.python_version()} on {platform.platform()}"


def _torch() -> tuple[str, bool | None, str]:
    try:
        import torch
    except ImportError as error:
        return "torch", False, f"cannot be imported ({error}); pip install torch"
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device += f" ({torch.cuda.get_device_name(0)})"
    bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return (
        "torch", True,
        f"{torch.__version__}, {device}, {torch.get_num_threads()} threads of {os.cpu_count()} "
        f"processors, bf16 on this processor: {'yes' if bf16 else 'no'}",
    )  # fmt: skip


def _model(name: str) -> tuple[str, bool | None, str]:
    from embedtune.embed.models import resolve_model
    from embedtune.errors import EmbedtuneError

    try:
        found = resolve_model(name)
    except EmbedtuneError as error:
        return "model", False, str(error)
    return "model", True, f"{name} from {found.source}: {found.path}"


def _endpoint() -> tuple[str, bool | None, str]:
    for variable in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_KEY", "GEMINI_API_KEY"):
        if os.environ.get(variable):
            return "language model", True, f"{variable} is set (its value is not shown)"
    return (
        "language model", None,
        "no OPENAI_API_KEY nor OPENAI_BASE_URL: queries can be extractive, scripted or your own",
    )  # fmt: skip


def _disk() -> tuple[str, bool | None, str]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return "disk", free > 2, f"{free:.1f} GB free here (a run of a small model takes about 1 GB)"
