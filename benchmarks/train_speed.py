"""Training speed: `embedtune train`'s engine beside SentenceTransformerTrainer as it comes.

    python benchmarks/train_speed.py [--pairs 2000] [--epochs 1] [--questions N]
                                     [--passages corpus] [--arms plain,ours] [--json]

The same pairs (those of the train split, then passages with a stretch of words cut out as their
query; with ``--questions`` only whole passages, each with so many stretches as its queries, as a
language model writes several questions on a passage), the same loss (multiple negatives ranking),
batch and epochs, the same learning rate. The passages that are cut are those `embedtune` itself
makes of the annual report, of many lengths; ``--passages corpus``: those of the data set, nearly
all of one length, which leave a padded batch hardly anything to waste. Both sides are processes of
one thread that run in turns of some seconds (the other is stopped), so that the machine is the same
for both; counted is their CPU time, from texts to the saved model, without loading and without
evaluation. The spread is over the steps (the lowest and the highest tenth are left out). Then
nDCG@10 of both on test.

Arms: ``plain`` (the library's defaults: padded, fp32, dropout), ``ours`` (our engine, batches
drawn at random as there), ``ours-fp32``, ``ours-dropout`` (with all of the plain side's dropout),
``ours-itself`` (batch, learning rate and sampler as the command chooses them too). The share of the
peak counts the products of matrices with the real tokens, against the most that one thread reaches,
in bf16 or fp32, and in fp32; a passage that is encoded for several pairs at once counts for each of
them.
"""

import argparse
import itertools
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "nvidia_10k"
BASE = "sentence-transformers/all-MiniLM-L6-v2"
BATCH, RATE, SEED = 32, 5e-5, 12
TURN = 15.0  # seconds
SLOW = 10.0  # GFLOP/s
FEWEST = 4  # steps
LONGEST, SHORTEST_LEFT = 20, 10  # words of a stretch; of the passage without it
ARMS = {
    "plain": None,
    "ours": {},
    "ours-fp32": {"precision": "fp32"},
    "ours-dropout": {"attention_dropout": True},
    "ours-itself": {"batch_size": "auto", "learning_rate": "auto", "sampler": "neighbours"},
}


def passages_of(folder: Path) -> list[Any]:
    """The chunks that `embedtune` makes of the PDF file beside the data set."""
    from embedtune.config import RunSettings
    from embedtune.documents import chunk_documents, read_documents
    from embedtune.pipeline.untrained import tokens_of

    settings = RunSettings()
    documents = read_documents(sorted(folder.glob("*.pdf")), settings.documents).documents
    return list(chunk_documents(documents, tokens_of(BASE), settings.chunks).chunks)


def pairs_of(folder: Path, count: int, passages: str, questions: int = 0) -> list[Any]:
    """Pairs of the train split, filled up with stretches of words cut out of passages.

    Args:
        passages: ``document``: those stretches come from the chunks of the PDF; ``corpus``: from
            the data set's passages.
        questions: So many stretches of each passage, which stays whole, and no other pairs; 0: as
            above.
    """
    from embedtune.datasets.beir import read_beir
    from embedtune.pipeline.tune import training_pairs
    from embedtune.records import Pair

    data = read_beir(folder).data
    pairs = [] if questions else training_pairs(data)
    draw = random.Random(SEED)
    chunks = [chunk for chunk in (passages_of(folder) if passages == "document" else data.chunks)
              if len(chunk.embedded.split()) >= LONGEST + SHORTEST_LEFT]  # fmt: skip
    if questions:
        count = min(count, questions * len(chunks))
        chunks = draw.sample(chunks, math.ceil(count / questions))
    while len(pairs) < count:
        for chunk in draw.sample(chunks, len(chunks)):
            words = chunk.embedded.split()
            length = draw.randint(8, LONGEST)
            start = draw.randrange(len(words) - length)
            rest = " ".join(words[:start] + words[start + length :])
            query = " ".join(words[start : start + length])
            passage = chunk.embedded if questions else rest
            pairs.append(Pair(f"cut{len(pairs)}", chunk.id, query, passage))
    return pairs[:count]


# ---- a side, in a process of its own


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def side(arm: str, pairs: list[Any], epochs: float, work: Path) -> None:
    import torch

    torch.set_num_threads(1)
    from embedtune.embed.loading import load_sentence_transformer

    if arm == "plain":
        model = load_sentence_transformer(BASE, device="cpu")
        tell(ready=True)
        begin = time.process_time()
        plain(model, pairs, epochs, work, begin)
    else:
        from embedtune.embed.local import MemoryEmbedder  # noqa: F401  (imports are not counted)
        from embedtune.training.examples import from_pairs
        from embedtune.training.plan import TrainingSettings
        from embedtune.training.train import train

        own = {"batch_size": BATCH, "learning_rate": RATE, "sampler": "random", **ARMS[arm]}
        settings = TrainingSettings(
            loss="mnrl", matryoshka="off", epochs=epochs, seed=SEED, evaluate_every=10**6,
            device="cpu", **own,
        )  # fmt: skip
        answers: dict[str, set[str]] = defaultdict(set)
        for pair in pairs:
            answers[pair.query].add(pair.chunk)
        started = []

        def score(model: Any) -> float:  # no evaluation; the clock starts when the model is there
            if not started:
                tell(ready=True)
                started.append(time.process_time())
            return 0.5

        import sentence_transformers.sentence_transformer.losses  # noqa: F401

        trained = train(
            [from_pairs("train", pairs)], BASE, work,
            excluded=lambda query: frozenset(answers[query]), score=score,
            settings=settings,
            progress=lambda step, total: tell(step=step, cpu=time.process_time() - started[0]),
        )  # fmt: skip
        tell(done=True, cpu=time.process_time() - started[0], model=str(trained.model),
             batch=trained.plan.batch_size)  # fmt: skip


def plain(model: Any, pairs: list[Any], epochs: float, work: Path, begin: float) -> None:
    """As the library's documentation has it."""
    from sentence_transformers import (
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import PrinterCallback, TrainerCallback

    from datasets import Dataset

    class Teller(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            tell(step=state.global_step, cpu=time.process_time() - begin)

    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(work), num_train_epochs=epochs, per_device_train_batch_size=BATCH,
            learning_rate=RATE, warmup_steps=0.1, seed=SEED, use_cpu=True, report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict(
            {"anchor": [pair.anchor for pair in pairs],
             "positive": [pair.positive for pair in pairs]}
        ),
        loss=MultipleNegativesRankingLoss(model),
        callbacks=[Teller()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.save(str(work / "model"), create_model_card=False)
    tell(done=True, cpu=time.process_time() - begin, model=str(work / "model"), batch=BATCH)


def peak() -> None:
    """GFLOP/s of one thread in products of matrices, fp32 and bf16."""
    import torch

    torch.set_num_threads(1)
    found = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        # a processor without bf16 needs a minute for what others do in a tenth of a second
        small, large = (torch.randn(size, size).to(dtype) for size in (256, 2048))
        _product(small)
        found[name] = max(_product(small) for _ in range(7))
        if found[name] > SLOW:
            _product(large)
            found[name] = max(_product(large) for _ in range(7))
    tell(**found)


def _product(matrix: Any) -> float:
    """GFLOP/s of one product with itself."""
    begin = time.process_time()
    matrix @ matrix
    return 2 * len(matrix) ** 3 / (time.process_time() - begin) / 1e9


def work_of(pairs: list[Any]) -> float:
    """GFLOP of a pair on average, forward and backward: real tokens, each text once."""
    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.packed import token_ids

    model = load_sentence_transformer(BASE, device="cpu")
    config = model[0].auto_model.config
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    total = 0.0
    for role, texts in (("query", [pair.anchor for pair in pairs]),
                        ("document", [pair.positive for pair in pairs])):  # fmt: skip
        for ids in token_ids(model, texts, role):
            tokens = len(ids)
            dense = 2 * tokens * (4 * hidden * hidden + 2 * hidden * inner)
            total += 3 * layers * (dense + 4 * tokens * tokens * hidden)
    return total / len(pairs) / 1e9


# ---- both in turns


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, __file__, *map(str, arguments)],
        stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
             "TOKENIZERS_PARALLELISM": "false"},
    )  # fmt: skip


def lines_of(process: subprocess.Popen, seconds: float) -> list[dict[str, Any]]:
    """What a side tells within ``seconds``, or until it is done."""
    import select

    found, end = [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([process.stdout], [], [], left)[0]:
            break
        line = process.stdout.readline()
        if not line:
            break
        found.append(json.loads(line))
        if "done" in found[-1] or "ready" in found[-1]:
            break
    return found


def race(arms: list[str], given: argparse.Namespace, count: int, work: Path) -> dict[str, Any]:
    sides = {arm: start("--side", arm, "--data", given.data, "--pairs", given.pairs,
                        "--passages", given.passages, "--questions", given.questions,
                        "--epochs", given.epochs, "--work", work / arm)
             for arm in arms}  # fmt: skip
    told: dict[str, list[list[dict[str, Any]]]] = {arm: [] for arm in arms}
    try:
        for process in sides.values():
            if not any("ready" in line for line in lines_of(process, 600)):
                raise SystemExit("a side did not start")
            process.send_signal(signal.SIGSTOP)
        waiting = dict(sides)
        while waiting:
            for arm, process in list(waiting.items()):
                process.send_signal(signal.SIGCONT)
                lines = lines_of(process, TURN)
                process.send_signal(signal.SIGSTOP)
                told[arm].append(lines)
                if any("done" in line for line in lines):
                    process.send_signal(signal.SIGCONT)
                    process.wait()
                    del waiting[arm]
                elif process.poll() is not None:
                    raise SystemExit(f"{arm} ended with {process.returncode}")
    finally:
        for process in sides.values():
            process.kill()
    return {arm: told_by(turns, count, given.epochs) for arm, turns in told.items()}


def told_by(turns: list[list[dict[str, Any]]], count: int, epochs: float) -> dict[str, Any]:
    lines = [line for turn in turns for line in turn]
    ends = [line["cpu"] for line in lines if "step" in line]
    last = lines[-1]
    speeds = [last["batch"] / (end - start) for start, end in itertools.pairwise(ends)]
    tenths = statistics.quantiles(speeds, n=10, method="inclusive")
    return {
        "pairs_per_second": count * epochs / last["cpu"],
        "low": tenths[0],
        "high": tenths[-1],
        "median": statistics.median(speeds),
        "cpu_seconds": last["cpu"],
        "model": last["model"],
    }


def quality(data: Path, model: str) -> float:
    from embedtune.datasets.beir import read_beir
    from embedtune.embed.loading import load_sentence_transformer
    from embedtune.embed.local import MemoryEmbedder
    from embedtune.evaluation.evaluate import Evaluator
    from embedtune.evaluation.settings import EvaluationSettings

    evaluator = Evaluator(read_beir(data).data, EvaluationSettings())
    loaded = load_sentence_transformer(model, device="cpu")
    return evaluator.score_embedder(MemoryEmbedder(loaded, model), "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--passages", choices=("document", "corpus"), default="document")
    parser.add_argument("--questions", type=int, default=0, help="on each passage, whole")
    parser.add_argument("--arms", default="plain,ours")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "peak":
        return peak()
    if given.passages == "document" and not any(given.data.glob("*.pdf")):
        parser.error(f"no PDF file in {given.data}; --passages corpus")
    pairs = pairs_of(given.data, given.pairs, given.passages, given.questions)
    if given.side:
        return side(given.side, pairs, given.epochs, given.work)
    if len(pairs) * given.epochs < FEWEST * BATCH:
        parser.error(f"--pairs: at least {FEWEST} steps of {BATCH} are needed for a spread")
    arms = given.arms.split(",")
    with tempfile.TemporaryDirectory() as folder:
        found = race(arms, given, len(pairs), Path(folder))
        gflop = work_of(pairs)
        process = start("--side", "peak")
        peaks = json.loads(process.communicate()[0])
        for row in found.values():
            row["ndcg@10"] = quality(given.data, row.pop("model"))
            row["share_of_peak"] = row["pairs_per_second"] * gflop / max(peaks.values())
            row["share_of_fp32_peak"] = row["pairs_per_second"] * gflop / peaks["fp32"]
    ours = next((arm for arm in arms if arm.startswith("ours")), arms[-1])
    first = found.get("plain", found[ours])
    facts = {
        "ratio": found[ours]["pairs_per_second"] / first["pairs_per_second"],
        "ours_pairs_per_second": found[ours]["pairs_per_second"],
        "plain_pairs_per_second": first["pairs_per_second"],
        "ours_ndcg@10": found[ours]["ndcg@10"],
        "plain_ndcg@10": first["ndcg@10"],
        "ratios": {arm: row["pairs_per_second"] / first["pairs_per_second"]
                   for arm, row in found.items()},
        "gflop_a_pair": gflop, "peak_gflops": peaks, "pairs": len(pairs), "epochs": given.epochs,
        "load": os.getloadavg()[0], "arms": found,
    }  # fmt: skip
    if given.json:
        print(json.dumps(facts))
        return None
    print(f"{len(pairs)} pairs, {given.epochs:g} epochs, one thread each in turns; "
          f"{gflop:.1f} GFLOP a pair; peak {peaks['fp32']:.0f} (fp32), {peaks['bf16']:.0f} (bf16) "
          f"GFLOP/s; load {facts['load']:.1f}")  # fmt: skip
    print(f"{'':14}{'pairs/CPU s':>12}{'steps':>16}{'ratio':>7}{'of peak':>11}{'nDCG@10':>9}")
    for arm, row in found.items():
        print(f"{arm:14}{row['pairs_per_second']:12.2f}{row['low']:9.2f}–{row['high']:5.2f}"
              f"{facts['ratios'][arm]:8.2f}{row['share_of_peak']:11.0%}"
              f"{row['ndcg@10']:9.3f}")  # fmt: skip
    return None


if __name__ == "__main__":
    main()
