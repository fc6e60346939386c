"""Entry point of the ``embedtune`` command."""

import os
import sys


def main() -> None:
    # before torch is imported anywhere: on shared machines threads that spin while they wait
    # bring each other to a halt, and third-party progress bars would mix with ours
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from embedtune.cli import run_command_line

    # a name that the terminal's encoding lacks is shown escaped, never a crash
    sys.stdout.reconfigure(errors="backslashreplace")

    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
