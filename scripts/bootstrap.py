"""Set up .venv when it is missing or stale, then run a Python command in it.

    python3 scripts/bootstrap.py -m embedtune demo
    python3 scripts/bootstrap.py -m pytest -q

Standard library only. The stamp `.venv/.ready` holds a hash of everything the
installation depends on; when it agrees, pip is not called at all.
TORCH_INDEX_URL names another wheel index for torch (a CPU-only or CUDA build).
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / ".ready"
EXTRAS = "demo,dev"
PIP = "pip==26.3"  # Python's own may be old, and needs four times as long


def installation_key() -> str:
    parts = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    parts += [EXTRAS.encode(), sys.version.encode(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install() -> None:
    print("embedtune: setting up .venv (a few minutes, once)", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, PIP], check=True)
    pip += ["--no-compile", "-c", str(ROOT / "constraints.txt")]
    torch_index = os.environ.get("TORCH_INDEX_URL")
    # torch first and by itself: constraints pick the CPU build wherever pip can see one
    subprocess.run(
        [*pip, "torch", *(["--index-url", torch_index] if torch_index else [])], check=True
    )
    subprocess.run([*pip, "-e", f"{ROOT}[{EXTRAS}]"], check=True)


def main() -> int:
    if sys.version_info < (3, 11):
        print(
            f"embedtune needs Python 3.11 or newer; this is {sys.version.split()[0]}",
            file=sys.stderr,
        )
        return 2
    key = installation_key()
    if not (STAMP.exists() and STAMP.read_text() == key):
        try:
            install()
        except subprocess.CalledProcessError as error:
            print(f"embedtune: set-up failed at: {' '.join(error.cmd)}", file=sys.stderr)
            return error.returncode
        STAMP.write_text(key)
    # what is imported is compiled once and kept, not by each process that is started
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.call([str(PYTHON), *sys.argv[1:]], env=kept)


if __name__ == "__main__":
    sys.exit(main())
