"""Training killed two hundred times, half of them inside a save: it ends with the same weights.

    python benchmarks/training_kills.py [--kills 200] [--in-saves 100] [--write docs/proofs.md]

A process trains a small model and is killed with SIGKILL, at a random moment or while it writes a
checkpoint; the next one goes on in the same folder, until the training is whole and a new round
begins. Weights and history of each round must be equal, byte for byte, to those of an undisturbed
run. Rounds take turns between both engines: the flat forward and the library's trainer.

A kill counts as inside a save when it left a checkpoint behind that was begun and not finished.

A child is forked from this process, which has everything imported, so a kill costs a second.
Rounds done stand in the progress file; the same command goes on from there.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# before torch is imported: a process with threads should not fork
os.environ.update(
    OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false",
    TQDM_DISABLE="1", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="",
)  # fmt: skip

from embedtune.files import sha256_of
from embedtune.records import Pair
from embedtune.training.checkpoints import HASHES
from kills import commit_now, put_section

ENGINES = {"fast": {}, "plain": {"max_grad_norm": 1.0}}  # the latter as a field of the trainer's
LONGEST = 300.0  # seconds of a life: beyond, something hangs
PAUSE = {"fast": 0.004, "plain": 0.04}  # most seconds from the begin of a save to the kill
FILES = ("history.jsonl", "model/model.safetensors")
TOPICS = ("robot", "battery", "mud", "fee", "radio", "crate", "winter", "fruit")


@dataclass(frozen=True, slots=True)
class Round:
    number: int
    engine: str
    kills: int
    in_saves: int
    identical: bool
    seconds: float
    commit: str


def make_model(folder: Path) -> None:
    """A random BERT of two layers, saved as sentence-transformers does."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TOPICS, "what", "is", "the", "for"]
    words += [*(f"answer{n}" for n in range(8)), *map(str, range(64))]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=256, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    modules = [Transformer(str(folder)), Pooling(64, pooling_mode="mean"), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save(str(folder / "whole"), create_model_card=False)


def make_pairs(count: int = 32) -> list[Pair]:
    return [
        Pair(f"q{n}", f"c{n}", f"what is {TOPICS[n % 8]} {n}", f"the answer{n % 8} is for {n}")
        for n in range(count)
    ]


def train_once(base: Path, work: Path, engine: str) -> None:
    """The training that is killed: 16 steps, a checkpoint every second one."""
    from embedtune.training.examples import from_pairs
    from embedtune.training.plan import TrainingSettings
    from embedtune.training.train import train

    pairs = make_pairs()

    def accuracy(model: Any) -> float:
        left = model.encode([pair.anchor for pair in pairs[:8]])
        right = model.encode([pair.positive for pair in pairs[:8]])
        return float(((left @ right.T).argmax(axis=1) == range(8)).mean())

    train(
        [from_pairs("train", pairs)],
        str(base),
        work,
        excluded={pair.query: frozenset({pair.chunk}) for pair in pairs}.__getitem__,
        score=accuracy,
        settings=TrainingSettings(
            epochs=4, batch_size=8, learning_rate=3e-3, evaluate_every=2, log_every=1,
            precision="fp32", device="cpu", trainer=ENGINES[engine],
        ),
    )  # fmt: skip


def warm_up() -> None:
    """Import what the children need; nothing may start a thread."""
    import peft  # noqa: F401
    import sentence_transformers.sentence_transformer.losses  # noqa: F401
    import torch
    import transformers  # noqa: F401
    from sentence_transformers import (  # noqa: F401
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from transformers import BertModel, BertTokenizerFast  # noqa: F401

    import datasets  # noqa: F401
    import embedtune.training.train  # noqa: F401

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)


def fork(work: Callable[[], None], log: Path) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def saving(checkpoints: Path) -> set[tuple[str, int]]:
    """(name, inode) of the checkpoints that were begun and are not whole."""
    found = set()
    try:
        with os.scandir(checkpoints) as entries:
            for entry in entries:
                begun = entry.name.startswith(".checkpoint-") or (
                    entry.name.startswith("checkpoint-")
                    and not os.path.exists(os.path.join(entry.path, HASHES))
                )
                if begun:
                    found.add((entry.name, entry.inode()))
    except OSError:  # not yet there, or just renamed
        pass
    return found


def live(child: int, checkpoints: Path, log: Path, *, until: float, save: int,
         pause: float) -> bool:  # fmt: skip
    """Whether the child had to be killed: ``until`` seconds after its begin, or ``pause`` seconds
    after the begin of its save of that number (0: at no save)."""
    begin = time.monotonic()
    seen = saving(checkpoints)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit(f"a process ended by itself with status {status}:\n"
                                 + log.read_text()[-3000:])  # fmt: skip
            return False
        life = time.monotonic() - begin
        if save and (new := saving(checkpoints) - seen):
            seen |= new
            save -= len(new)
            if save <= 0:
                time.sleep(pause)
                break
        if life > until:
            break
        time.sleep(0.0001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if life > LONGEST:
        raise SystemExit(f"a training takes more than {LONGEST} s")
    return True


def digests(work: Path) -> list[str]:
    return [sha256_of(work / name) for name in FILES]


def play(number: int, engine: str, base: Path, calm: Sequence[str], seconds: float,
         commit: str) -> Round:  # fmt: skip
    """One training, killed until it is whole."""
    order = random.Random(number)
    began = time.monotonic()
    kills = in_saves = 0
    with tempfile.TemporaryDirectory() as name:
        work, log = Path(name) / "work", Path(name) / "log.txt"
        checkpoints = work / "checkpoints"
        while True:
            before = saving(checkpoints)
            child = fork(lambda: train_once(base, work, engine), log)
            aimed = order.random() < 0.75
            killed = live(
                child, checkpoints, log,
                until=LONGEST if aimed else order.uniform(0, 1.2 * seconds),
                save=order.choice((1, 2, 3)) if aimed else 0,
                pause=order.uniform(0, PAUSE[engine]),
            )  # fmt: skip
            if not killed:
                break
            kills += 1
            in_saves += bool(saving(checkpoints) - before)
        identical = digests(work) == list(calm)
    return Round(number, engine, kills, in_saves, identical,
                 round(time.monotonic() - began, 1), commit)  # fmt: skip


def prove(
    kills: int, in_saves: int, engines: Sequence[str], progress: Path | None, commit: str
) -> list[Round]:
    """Rounds with as many kills, and as many inside a save; those in ``progress`` counted."""
    rounds = []
    if progress is not None and progress.exists():
        rounds = [Round(**json.loads(line)) for line in progress.read_text().splitlines()]
        rounds = [found for found in rounds if found.commit == commit]
    warm_up()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, log = folder / "base" / "whole", folder / "log.txt"
        live(fork(lambda: make_model(folder / "base"), log), folder, log,
             until=LONGEST, save=0, pause=0)  # fmt: skip
        calm = {}
        for engine in engines:
            begin = time.monotonic()
            work = folder / engine
            live(fork(lambda own=engine, to=work: train_once(base, to, own), log),
                 work, log, until=LONGEST, save=0, pause=0)  # fmt: skip
            calm[engine] = digests(work), time.monotonic() - begin
        while (
            (done := sum(found.kills for found in rounds)) < kills
            or sum(found.in_saves for found in rounds) < in_saves
            or len(rounds) < len(engines)
        ):  # fmt: skip
            number = max((found.number for found in rounds), default=0) + 1
            engine = engines[(number - 1) % len(engines)]
            rounds.append(play(number, engine, base, *calm[engine], commit))
            if progress is not None:
                progress.parent.mkdir(parents=True, exist_ok=True)
                with progress.open("a") as file:
                    file.write(json.dumps(asdict(rounds[-1])) + "\n")
            done += rounds[-1].kills
            inside = sum(found.in_saves for found in rounds)
            print(f"\r{done} kills, {inside} inside a save", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return rounds


def summary(rounds: Sequence[Round], commit: str) -> str:
    kills = {
        engine: sum(found.kills for found in rounds if found.engine == engine)
        for engine in ENGINES
    }  # fmt: skip
    return (
        f"{sum(kills.values())} kills (SIGKILL) of {len(rounds)} trainings, "
        f"{sum(found.in_saves for found in rounds)} of them inside a save ({kills['fast']} with "
        f"the flat forward, {kills['plain']} with the library's trainer): "
        f"{sum(found.identical for found in rounds)} of {len(rounds)} ended with the weights and "
        f"the history of an undisturbed run, bit for bit. {datetime.now(UTC):%Y-%m-%d}, commit "
        f"{commit}, {sum(found.seconds for found in rounds):,.0f} s."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--in-saves", type=int, default=100)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--progress", type=Path, help="where rounds done are kept")
    parser.add_argument("--write", type=Path, help="the page of proofs to put the summary into")
    options = parser.parse_args()
    commit = commit_now("src/embedtune/training", "src/embedtune/embed", "src/embedtune/files.py")
    rounds = prove(options.kills, options.in_saves, options.engines, options.progress, commit)
    line = summary(rounds, commit)
    print(line)
    if options.write:
        put_section(options.write, "training kills", "Training survives being killed", line,
                    "benchmarks/training_kills.py")  # fmt: skip
    sys.exit(0 if all(found.identical for found in rounds) else 1)


if __name__ == "__main__":
    main()
