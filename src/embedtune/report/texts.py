"""Every sentence of the report and the model card. Another language is another table like this."""

from collections.abc import Callable, Mapping

Texts = Mapping[str, str]

ENGLISH: Texts = {
    "language": "en",
    "brand": "embedtune report",
    "made": "Made {created}",
    # verdict
    "verdict": "Verdict",
    "verdict.ship.name": "Ship",
    "verdict.ship-hybrid.name": "Ship as hybrid",
    "verdict.do-not-ship.name": "Do not ship",
    "verdict.inconclusive.name": "Inconclusive",
    "verdict.none.name": "No verdict yet",
    "verdict.ship": "Ship {subject}: it finds the right passages more often than the base model.",
    "verdict.ship-hybrid": "Ship {subject} together with BM25: the two combined find the right "
    "passages more often than either does alone.",
    "verdict.do-not-ship": "Do not ship {subject}: {better} finds the right passages more often.",
    "verdict.inconclusive": "Not decided: this test can show neither that {subject} is better nor "
    "that it is worse.",
    "verdict.inconclusive.flags": "Not decided: the numbers cannot be trusted until the health "
    "flags below are settled.",
    "verdict.none": "This run stopped before its verdict; the report shows what is there.",
    "subject.tuned": "the tuned model",
    "subject.base": "the base model",
    "number.rose": "nDCG@10 rose from {before} to {after}: {mean} (95 % interval {low} to {high}).",
    "number.fell": "nDCG@10 fell from {before} to {after}: {mean} (95 % interval {low} to {high}).",
    "number.same": "nDCG@10 stayed at {after}: {mean} (95 % interval {low} to {high}).",
    "reasons": "Why",
    "next": "What next",
    "next.ship.1": "Load the model as shown under “Use the model”.",
    "next.ship.2": "Encode all passages again with it before you switch: vectors of two models "
    "must not be mixed in one index.",
    "next.ship.3": "Ask it what your users really ask, beginning with the lost questions below.",
    "next.ship-hybrid.1": "Search with the model and with BM25, and join both lists as shown under "
    "“Use the model”.",
    "next.ship-hybrid.2": "Encode all passages again with the model before you switch: vectors of "
    "two models must not be mixed in one index.",
    "next.do-not-ship.1": "Keep {better}.",
    "next.do-not-ship.2": "Read the lost questions below: they show what training broke, or what "
    "the model cannot read.",
    "next.do-not-ship.3": "Then change one thing (another base model, more or better questions, a "
    "lower learning rate) and run again.",
    "next.inconclusive.1": "Add questions, above all real ones from your users, about documents "
    "that have none yet: more groups in the test narrow the interval most.",
    "next.inconclusive.2": "Run the same command again; finished stages are kept.",
    "next.inconclusive.flags.1": "Settle the health flags that block shipping, one by one.",
    "next.none.1": "Run the same command again: it goes on where it stopped.",
    "tile.queries": "test questions",
    "tile.groups": "groups of documents",
    "tile.passages": "passages searched",
    "tile.documents": "documents read",
    # shared
    "contents": "Contents",
    "missing.title": "Stages missing",
    "missing": "The stage “{stage}” has not finished, so there is nothing to show here.",
    "absent": "Not part of this run.",
    "stage.read": "reading documents",
    "stage.chunk": "cutting into passages",
    "stage.generate": "writing questions",
    "stage.split": "splitting",
    "stage.train": "training",
    "stage.evaluate": "evaluation",
    "stage.compare": "comparison",
    "stage.probe": "forgetting probe",
    "interval": "95 % interval",
    "queries": "Questions",
    "language.column": "Language",
    "style.column": "Style",
    "difference": "Difference",
    "before": "Before",
    "after": "After",
    "role.candidate": "candidate",
    "role.base": "base",
    "role.rival": "best rival",
    "chart.base": "Before (base)",
    "chart.candidate": "After (candidate)",
    "chart.rival": "Best rival",
    # systems
    "systems": "Systems",
    "systems.note": "Mean over {queries} questions of the {split} split, with 95 % intervals by "
    "group of documents. Best value of each column in bold.",
    "system": "System",
    "against": "The candidate against…",
    "against.note": "Candidate minus the other system (or as the row says), nDCG@10 per question; "
    "tested and given an interval by group. “p (Holm)” is corrected for the comparisons that "
    "decide.",
    "against.base": "base: {name}",
    "against.best_rival": "best rival: {name}",
    "against.bm25": "BM25",
    "against.hybrid": "candidate with BM25, against the candidate alone",
    "against.hybrid_bm25": "candidate with BM25, against BM25",
    "against.hybrid_base_hybrid": "candidate with BM25, against base with BM25",
    "against.base_hybrid_bm25": "base with BM25, against BM25",
    "p": "p",
    "p.holm": "p (Holm)",
    "clean": "Without near-duplicates of the training data",
    "clean.note": "The same systems on the {queries} test questions whose passages have no "
    "near-duplicate in the training split that came with the data.",
    "beforeafter": "Before and after",
    "beforeafter.label": "Scores of the base, the candidate and the best rival with 95 % "
    "intervals: {numbers}",
    "against.label": "Difference in nDCG@10, candidate minus each other system, with 95 % "
    "intervals: {numbers}",
    # dimensions
    "dims": "Smaller vectors",
    "dims.note": "Quality when each vector is cut to its first dimensions (Matryoshka). Fewer "
    "dimensions need less memory and search faster.",
    "dims.advice": "{small} of {full} dimensions keep {share} of the nDCG@10, at {memory} of the "
    "memory.",
    "dims.label": "nDCG@10 by number of dimensions: {numbers}",
    "dims.column": "Dimensions",
    "numbers": "The numbers",
    "dims.full": "all",
    # wins and losses
    "wins": "Wins and losses",
    "wins.note": "Each test question once: nDCG@10 after minus before.",
    "wins.count": "{gained} better, {equal} equal, {lost} worse.",
    "wins.label": "Differences of all {total} questions, sorted: {gained} better, {equal} equal, "
    "{lost} worse; from {low} to {high}.",
    "wins.none": "No question changed.",
    "better": "Better",
    "worse": "Worse",
    "gained": "Gained most",
    "lost": "Lost most",
    "rank": "rank {rank}",
    "rank.none": "not among the first {depth}",
    "right": "Right passage",
    "right.more": "One of {count} right passages",
    "top.before": "First passage before",
    "top.after": "First passage after",
    "top.same": "The right passage itself.",
    "top.nothing": "Nothing was found.",
    "is.right": "right",
    "is.wrong": "wrong",
    "page": "page {page}",
    "unknown.passage": "(passage {id} is not in this report)",
    "worst.axis": "questions, worst to best",
    "delta.axis": "difference in nDCG@10",
    # breakdowns
    "languages": "By language and style",
    "languages.note": "Means of nDCG@10. A row with few questions says little.",
    # training
    "training": "Training",
    "training.loss": "Training loss",
    "training.loss.label": "Training loss over {steps} steps, from {first} to {last}.",
    "training.dev": "Scores on dev",
    "training.dev.label": "{metric} on dev by step: {first} before training, best {best} at step "
    "{step}.",
    "training.best": "Best checkpoint at step {step}: {metric} {best} on dev, {base} before "
    "training.",
    "training.none.better": "No checkpoint was better on dev than the base ({base}).",
    "training.merged": "Chosen on dev: {alpha} of the tuned weights merged with the base.",
    "step": "step",
    "pairs": "pairs trained on",
    "seconds": "seconds",
    "base.line": "before training",
    # probe
    "probe": "Did it forget?",
    "probe.note": "General questions outside your documents. The gate holds when the mean loss is "
    "at most 0.01, or its interval reaches 0.01, and the loss is never over 0.03.",
    "probe.name": "Probe",
    "probe.gate": "Gate",
    "probe.held": "held",
    "probe.broken": "broken",
    "probe.uncounted": "does not count",
    # flags
    "flags": "Health flags",
    "flags.none": "None: nothing about the data or the base model limits what the numbers say.",
    "flags.blocks": "blocks shipping",
    "flags.language": "not for this language",
    "flags.informs": "for your information",
    # data
    "data": "Data",
    "data.note": "Every stage accounts for all it got: in = accepted + rejected + duplicates.",
    "stage": "Stage",
    "in": "In",
    "accepted": "Accepted",
    "rejected": "Rejected",
    "duplicates": "Duplicates",
    "rejects": "What was left out, and why",
    "rejects.code": "Reason",
    "rejects.count": "Count",
    "rejects.where": "Where",
    "rejects.what": "What",
    "rejects.more": "… and {more} more, counted above.",
    "rejects.list": "The first {shown} of {total}",
    "rejects.none": "Nothing was left out.",
    "unusable": "unusable",
    "filtered": "filtered",
    # audit
    "audit": "Data audit",
    "audit.note": "What the data set itself allows to learn and to measure, found before training. "
    "Also printed by embedtune audit.",
    "audit.summary": "{stops} findings that stop, {warns} that warn, {informs} for your "
    "information.",
    "audit.none": "Nothing was found.",
    "audit.stops": "stops",
    "audit.warns": "warns",
    "audit.informs": "informs",
    "audit.advice": "What to do:",
    "audit.findings": "Findings",
    "audit.leaks": "Leaks between splits",
    "audit.leaks.note": "Texts of one split that stand in another, by what they share. Passages of "
    "one form with other facts are none.",
    "audit.leaks.none": "No text of one split stands in another.",
    "audit.leaks.what": "Leak",
    "audit.leaks.count": "Held-out texts",
    "audit.leaks.share": "Share",
    "audit.leaks.pairs": "Pairs",
    "audit.leaks.example": "Example",
    "audit.what.passage": "passages",
    "audit.what.query": "questions",
    "audit.what.text": "texts",
    "audit.kind.exact": "word for word",
    "audit.kind.edited": "edited",
    "audit.kind.contained": "contained",
    "audit.kind.overlapping": "overlapping",
    "audit.kind.re-ordered": "in another order",
    "audit.passage": "{language} passages",
    "audit.query": "{language} questions",
    "audit.text": "{language} texts",
    "audit.lengths": "Lengths against the model’s limit",
    "audit.lengths.of": "{what} ({texts})",
    "audit.lengths.sentence": "{cut} are longer than the {limit} tokens that {model} reads; {lost} "
    "of all tokens are never seen, {unknown} are unknown to its vocabulary. Median {median}, "
    "longest {longest}.",
    "audit.lengths.label": "{what} by number of tokens: {texts} texts, median {median}, longest "
    "{longest}; {cut} are longer than the limit of {limit}.",
    "audit.tokens": "tokens",
    "audit.texts": "texts",
    "audit.limit": "the model reads {limit}",
    "audit.balance": "Balance",
    "audit.balance.label": "{of}: {numbers}",
    "audit.balance.first": "{of} (the first {shown} of {kinds})",
    # split
    "split": "Split",
    "split.by.documents": "Split by documents: no document, nor a near-duplicate of one, is in two "
    "splits.",
    "split.by.sections": "Split by sections: no section is in two splits.",
    "split.by.blocks": "Split by contiguous blocks; passages across a border are not trained on.",
    "split.by.given": "The splits came with the data and were not moved.",
    "split.optimistic": "Within one document: optimistic for new documents.",
    "split.name": "Split",
    "groups": "Groups",
    "split.moved": "Moved to another split",
    "split.dropped": "Dropped: {reason}",
    "notes": "Notes",
    # use
    "use": "Use the model",
    "use.note": "Five lines of Python, with the sentence-transformers package:",
    "use.passage": "A passage is encoded as its title, a space and its text, as in this test.",
    "use.hybrid.scores": "Then join its 100 best passages with those of BM25. Of each list, take "
    "the mean from the scores and divide by their standard deviation; a passage that one list does "
    "not have counts as its last. The score of a passage is {model} times that of the model plus "
    "{bm25} times that of BM25.",
    "use.hybrid.ranks": "Then join its 100 best passages with those of BM25: the score of a "
    "passage is {model} / ({k} + rank with the model) + {bm25} / ({k} + rank with BM25).",
    "use.caution": "The verdict does not say that you should; this is for trying it out.",
    "use.question": "How do I …?",
    "use.passages": "First passage …",
    # reproduce
    "reproduce": "How to reproduce",
    "command": "Command",
    "settings": "Settings",
    "versions": "Versions",
    "seeds": "Seeds",
    "fingerprints": "Fingerprints",
    "footer": "This page is one file: it loads nothing from the network and runs no script.",
    # model card
    "card.intro": "An embedding model tuned from {base} by embedtune on one collection of "
    "documents.",
    "card.intro.nobase": "An embedding model tuned by embedtune on one collection of documents.",
    "card.result": "Result",
    "card.numbers": "Measured on {queries} test questions that share no document with training.",
    "card.numbers.optimistic": "Measured on {queries} test questions from the same document as the "
    "training questions: optimistic for new documents.",
    "card.use": "Use",
    "card.limits": "Limits",
    "card.limit.domain": "Tuned and measured on one collection; other texts may fare worse than "
    "with the base model.",
    "card.limit.card": "Made by embedtune; the full report of the run has intervals, losses and "
    "how to reproduce it.",
}


def teller(texts: Texts) -> Callable[..., str]:
    """``t("key", name=value)``: the sentence under ``key`` with its values filled in."""

    def tell(key: str, /, **values: object) -> str:
        return texts[key].format(**values)

    return tell
