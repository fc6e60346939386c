"""The general probes: what systems score on them, and how far a tuned model has moved.

    python benchmarks/probe.py [SYSTEM ...] [--tuned MODEL] [--json]

A SYSTEM is as for `embedtune evaluate`; without any: BM25, the hashing embedder and MiniLM. With
--tuned, the first system is its base, and the gate and the drift of each probe follow. Texts that
are near-duplicates are counted beside; there should be none.
"""

import argparse
import json
import statistics
import time

from embedtune.evaluation.forgetting import LANGUAGES, ask_probes, bundled_probe, open_probes
from embedtune.evaluation.systems import System, parse_systems
from embedtune.similar import near_duplicates

SYSTEMS = ("bm25", "hashing", "sentence-transformers/all-MiniLM-L6-v2")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", default=SYSTEMS)
    parser.add_argument("--tuned")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    systems = parse_systems(args.systems)
    probes = open_probes(map(bundled_probe, LANGUAGES))
    facts: dict = {"probes": {}, "scores": [], "tuned": []}
    for probe in probes:
        chunks, queries = probe.data.chunks, probe.data.queries
        lengths = [len(own.text) if own.language == "zh" else len(own.text.split())
                   for own in chunks]  # fmt: skip
        facts["probes"][probe.data.name] = {
            "topics": len({own.document for own in chunks}),
            "passages": len(chunks),
            "queries": len(queries),
            "length": [min(lengths), statistics.median(lengths), max(lengths)],
            "near_duplicates": len(near_duplicates([own.text for own in chunks]))
            + len(near_duplicates([own.text for own in queries])),
        }
        for system in systems:
            begin = time.process_time()
            scores = probe.score(system, "test")
            seconds = time.process_time() - begin
            low, high = scores.intervals["ndcg@10"]
            facts["scores"].append(
                {"probe": probe.data.name, "system": system.label,
                 "ndcg@10": scores.metrics["ndcg@10"], "low": low, "high": high,
                 "hit@1": scores.metrics["hit@1"], "seconds": seconds}
            )  # fmt: skip
    if args.tuned:
        tuned = System("tuned", "dense", "local", args.tuned)
        facts["tuned"] = [own.as_json() for own in ask_probes(probes, systems[0], tuned)]
    print(json.dumps(facts, indent=1, ensure_ascii=False) if args.json else in_words(facts))


def in_words(facts: dict) -> str:
    lines = []
    for name, own in facts["probes"].items():
        lines.append(
            f"{name}: {own['topics']} topics, {own['passages']} passages of "
            f"{own['length'][0]} to {own['length'][2]} (median {own['length'][1]:g}) words or "
            f"characters, {own['queries']} queries, {own['near_duplicates']} near-duplicates"
        )
        for row in facts["scores"]:
            if row["probe"] == name:
                lines.append(
                    f"  {row['system']:<45} nDCG@10 {row['ndcg@10']:.3f} ({row['low']:.3f} to "
                    f"{row['high']:.3f})  hit@1 {row['hit@1']:.3f}  {row['seconds']:.1f} s"
                )
    for row in facts["tuned"]:
        drift = row["drift"]
        moved = (
            f"; cosine {drift['cosine'] or float('nan'):.3f}, CKA {drift['cka'] or 0:.3f}, "
            f"{drift['overlap']:.0%} of the neighbours stay"
            if drift
            else ""
        )
        lines.append(
            f"{row['name']}: {row['base']:.3f} before, {row['tuned']:.3f} after, loss "
            f"{row['loss']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f}), {row['outcome']}{moved}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
