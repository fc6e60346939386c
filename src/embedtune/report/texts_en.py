"""Every sentence of the report and the model card, in English."""

from collections.abc import Mapping

ENGLISH: Mapping[str, str] = {
    "language": "en",
    "brand": "embedtune report",
    "made": "Made {created}",
    "list.joined": "; ",
    "colon": ": ",
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
    "answer.helped": "Did it help?",
    "helped.yes": "Yes.",
    "helped.no": "No, it got worse.",
    "helped.open": "That is not shown: the difference may be chance.",
    "helped.same": "No: it ranks exactly as the base model does.",
    "helped.untuned": "Nothing was tuned: this is about the base model as it is.",
    "helped.plain": "The right passage now comes first for {after} of {total} test questions; "
    "before, for {before}.",
    "subject.tuned": "the tuned model",
    "subject.base": "the base model",
    "number.rose": "nDCG@10 rose from {before} to {after}: {mean} (95 % interval {low} to {high}).",
    "number.fell": "nDCG@10 fell from {before} to {after}: {mean} (95 % interval {low} to {high}).",
    "number.same": "nDCG@10 stayed at {after}: {mean} (95 % interval {low} to {high}).",
    "number.some": "That is of the {queries} questions of {total} that decide; tables are of all.",
    "sentence.joined": " ",
    "reasons": "Why",
    "next": "What next",
    "next.ship.1": "Load the model as shown under “Use the model”.",
    "next.ship.2": "Encode all passages again with it before you switch: vectors of two models "
    "must not be mixed in one index.",
    "next.ship.3": "Ask it what your users really ask, beginning with the lost questions below.",
    "next.languages": "Keep another model for {languages}: this one does not read it as it should, "
    "and the verdict is not about it.",
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
    "next.inconclusive.more": "Add about {more} test questions ({all} in all), above all real "
    "ones of your users, from about {groups} further documents: so many would settle it, if the "
    "difference stays as it is.",
    "next.inconclusive.never": "Do not wait for more questions: the difference is so small or so "
    "unsteady that no realistic number would settle it. Change the base model or the data.",
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
    "stage.filter": "filtering questions",
    "stage.split": "splitting",
    "stage.audit": "looking the data through",
    "stage.mine": "finding negatives",
    "stage.train": "training",
    "stage.evaluate": "evaluation",
    "stage.compare": "comparison",
    "stage.probe": "forgetting probe",
    "interval": "95 % interval",
    "queries": "Questions",
    "question": "Question",
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
    "power.smallest": "What this test set can show: a gain of about {gain} or more, with "
    "{queries} questions in {groups} groups. A smaller one is missed more than once in five times.",
    "power.needed": "To show a difference of {assumed}, about {queries} questions in {groups} "
    "groups would be needed.",
    "power.never": "A difference of {assumed} could not be shown with any realistic number of "
    "questions.",
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
    "dims": "Smaller index",
    "dims.matryoshka": "Before and after by dimension",
    "dims.note": "Quality when each vector is cut to its first dimensions (Matryoshka). Fewer "
    "dimensions need less memory and search faster.",
    "dims.advice": "{small} of {full} dimensions keep {share} of the nDCG@10, at {memory} of the "
    "memory.",
    "dims.label": "nDCG@10 by number of dimensions: {numbers}",
    "dims.column": "Dimensions",
    "numbers": "The numbers",
    "dims.full": "all",
    # the index
    "compress": "How small the index may be",
    "compress.note": "Quality, memory and search time of every number of dimensions in every "
    "precision: {queries} questions of the {split} split against {rows} passages, exact search on "
    "one core of this machine.",
    "compress.advice": "Recommended: {dimension} dimensions as {precision}. That is {share} of the "
    "memory at {difference} in the score (95 % interval {low} to {high}): a million passages need "
    "{after} instead of {before}.",
    "compress.none": "Recommended: all {dimension} dimensions as they are. Everything smaller "
    "loses more than it should.",
    "compress.small": "With {rows} passages, rescoring has next to nothing to leave out, so its "
    "figures flatter it and it is not recommended here.",
    "compress.kept": "{loss} below full",
    "compress.axis": "bytes a vector, in memory",
    "compress.label": "{metric} by dimensions and precision: {numbers}",
    "compress.grid": "{metric} by dimensions and precision",
    "compress.name": "Index",
    "compress.score": "Score",
    "compress.memory": "Bytes a vector",
    "compress.disk": "on disk {disk}",
    "compress.size": "{size} vectors",
    "compress.time": "ms a search",
    "compress.best": "recommended",
    "precision.float32": "float32",
    "precision.float16": "float16",
    "precision.int8": "int8",
    "precision.binary": "binary",
    "precision.binary+rescore": "binary, rescored",
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
    "why": "What can be seen",
    "why.terms": "Terms of the question that the right passage has too: {shared} ({found} of "
    "{terms}).",
    "why.none": "The right passage has no term of the question.",
    "why.other": "The passage that took its place, or lost it, has: {shared}.",
    "why.counts": "What holds for questions that gained, lost or stayed",
    "why.note": "Seen, not proved, to be why: what holds as often for gains as for losses says "
    "nothing.",
    "code.no-shared-term": "no term in common with the right passage",
    "code.unknown-query": "a fifth or more of the question’s tokens is unknown to the base",
    "code.unknown-passage": "a fifth or more of the passage’s tokens is unknown to the base",
    "code.cut": "the passage is longer than the base reads",
    "code.answer-cut": "the stretch that answers is beyond what the base reads",
    "code.other-shares-more": "the passage in its place has more terms of the question",
    "code.same-document": "the passage in its place is from the same document",
    "code.several-right": "several passages are right",
    "same": "Same",
    # hardest
    "hardest": "Hardest questions",
    "hardest.note": "Lowest best score over all systems. {unfound} questions have no right passage "
    "among the first {depth} of any system: look whether their judgements are right and the "
    "answer is in the documents.",
    "hardest.none": "Every question is answered perfectly by some system.",
    "hardest.best": "Best score",
    "hardest.rank": "Best rank",
    # breakdowns
    "parts": "Where it gained and lost",
    "parts.note": "Means of nDCG@10. An interval is given from {queries} questions in {groups} "
    "groups on; of smaller parts nothing is to be concluded. Many parts are looked at, and one "
    "interval in twenty misses: they show where to look, and decide nothing.",
    "parts.rest": "{count} smaller ones together",
    "parts.document": "By document",
    "parts.section": "By section",
    "parts.style": "By style of the question",
    "parts.language": "By language",
    "parts.query-length": "By length of the question (words, Chinese characters)",
    "parts.passage-length": "By length of the right passage (words, Chinese characters)",
    "parts.question": "By kind of question",
    "part.style.question": "questions",
    "part.style.keywords": "keywords",
    "part.style.colloquial": "colloquial",
    "part.style.scenario": "scenario",
    "part.style.comparison": "comparison",
    "part.question.how-many": "how many, how long …",
    "part.question.why": "why",
    "part.question.how": "how",
    "part.question.when": "when",
    "part.question.where": "where",
    "part.question.who": "who",
    "part.question.which": "which",
    "part.question.what": "what",
    "part.question.yes-no": "yes or no",
    "part.question.none": "no question word",
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
    "merge": "Domain against general",
    "merge.note": "The tuned weights merged with the base, from none of them (α 0) to all (α 1): "
    "what is gained on dev, and what is lost on the general probes. The point chosen is the best "
    "on dev that holds the gate.",
    "merge.note.unasked": "The tuned weights merged with the base, from none of them (α 0) to all "
    "(α 1). No general probe was asked.",
    "merge.loss": "largest loss on a general probe (nDCG@10)",
    "merge.dev": "{metric} on dev",
    "merge.gate": "allowed: {gate}",
    "merge.label": "Score on dev ({metric}) and loss in general by merge weight: {numbers}",
    "merge.lost": "Lost in general",
    "merge.chosen": "chosen",
    "bases": "Base models considered",
    "bases.note": "Measured on dev before training; of models that dev cannot tell apart, the "
    "lightest was taken.",
    "bases.name": "Model",
    "bases.score": "Score on dev",
    "bases.parameters": "Weights",
    "bases.licence": "Licence",
    "bases.unreadable": "cannot read {share} of the text",
    "bases.failed": "could not be measured",
    "recipe.learning_rate": "learning rate",
    "recipe.epochs": "epochs",
    "recipe.temperature": "temperature",
    "recipe.negatives": "negatives",
    "recipe.batch_size": "batch size",
    "trials": "Recipes tried",
    "trials.note": "{total} trials in {minutes} minutes, judged on dev; trials of a higher round "
    "saw more data.",
    "trials.recipe": "Recipe",
    "trials.round": "Round",
    "trials.score": "Score on dev",
    # probe
    "probe": "Did it forget?",
    "probe.note": "General questions outside your documents. The gate holds when the mean loss is "
    "at most 0.01, or its interval reaches 0.01, and the loss is never over 0.03.",
    "probe.name": "Probe",
    "probe.gate": "Gate",
    "probe.held": "held",
    "probe.broken": "broken",
    "probe.uncounted": "does not count",
    "drift": "How far the space has moved",
    "drift.note": "The same general passages in both models: mean cosine of a passage’s two "
    "vectors, linear CKA (blind to rotation, which changes no ranking), and how many of the "
    "nearest ten remain. 1 means that nothing moved.",
    "drift.cosine": "Cosine",
    "drift.overlap": "Neighbours kept",
    # thresholds
    "thresholds": "Scores and thresholds",
    "thresholds.note": "Of each question, the score of its best right passage and of the best "
    "wrong one. The less the two hills overlap, the better a threshold can tell them apart.",
    "spread.relevant": "best right passage",
    "spread.irrelevant": "best wrong passage",
    "spread.axis": "score",
    "spread.auc": "Of two questions taken at random, the right passage of one scores above the "
    "wrong passage of the other in {auc} of cases (AUC).",
    "spread.label": "Scores of the best right and the best wrong passage of {queries} questions "
    "with {system}; AUC {auc}.",
    "threshold.no-answer": "Saying “no answer”",
    "threshold.no-answer.note": "Use the best passage only from this score on. Each question is "
    "asked twice: with its answer in the index, and with it taken out.",
    "threshold.cache": "Semantic cache",
    "threshold.cache.note": "Give the answer of an earlier question again from this score on.",
    "threshold.basis.evidence": "Two questions count as one where they ask for the same stretch "
    "of text.",
    "threshold.basis.passage": "Two questions count as one where they ask for the same passage: "
    "that is generous, since a passage can answer several.",
    "threshold.no-dev": "No advice: the data has no dev split to choose on.",
    "threshold.few-queries": "No advice: {dev} questions on dev and {test} on test are too few.",
    "threshold.few-paraphrases": "No advice: too few questions ask for the same "
    "({dev} on dev, {test} on test).",
    "threshold.wanted": "Precision wanted",
    "threshold.from": "Use from score",
    "threshold.precision": "Precision",
    "threshold.recall": "Answered rightly",
    "threshold.false": "False answers",
    "threshold.unreached": "not reached; at most {reached}",
    # map
    "space": "Map of the texts",
    "map.note": "{passages} passages (dots) and {queries} questions (triangles) on a plane "
    "({method}); point at one to read it. Nearness on a map is a hint; the numbers under it are "
    "measured in full.",
    "map.tsne": "t-SNE",
    "map.umap": "UMAP",
    "map.pca": "PCA",
    "map.few-points": "Drawn by PCA: there are too few points for anything else.",
    "map.no-umap": "Drawn by PCA: UMAP is not installed.",
    "map.label": "{system}: {passages} passages and {queries} questions on a plane; "
    "trustworthiness {trust}, neighbours preserved {preserved}.",
    "map.others": "others",
    "map.trust": "Trustworthiness",
    "map.preserved": "Neighbours preserved",
    "map.silhouette": "Silhouette",
    "map.kept": "{share} of the {neighbours} nearest neighbours before are still nearest after.",
    "map.explain": "Trustworthiness and neighbours preserved say how far the picture can be "
    "believed (1 and 100 %: wholly); the silhouette says how well the coloured kinds part in "
    "truth, from −1 to 1.",
    # diagnosis
    "causes": "Diagnosis",
    "causes.none": "None of the known causes of a failed tuning was found.",
    "causes.number": "measured {number}, limit {limit}",
    "cause.test-set": "The test set is broken",
    "cause.test-set.do": "No untuned system rises above chance: look whether the judgements are "
    "right, and whether questions and passages belong together.",
    "cause.unknown-tokens": "The base does not know the script or the words",
    "cause.unknown-tokens.do": "Choose a base model for the language of the documents.",
    "cause.truncation": "Texts are cut off",
    "cause.truncation.do": "Make passages shorter, or choose a base model that reads more.",
    "cause.pooling": "The pooling does not fit",
    "cause.pooling.do": "Train and use the model with the pooling that the base is configured for.",
    "cause.prompts": "The prompts do not fit",
    "cause.prompts.do": "Use the same prompts in training, in evaluation and afterwards.",
    "cause.false-negatives": "Right answers among the negatives",
    "cause.false-negatives.do": "Remove near-duplicate passages, mine negatives more carefully, "
    "or draw batches at random (training.sampler: conflict_free).",
    "cause.learning-rate": "The learning rate is too high",
    "cause.learning-rate.do": "Lower training.learning_rate and train again.",
    "cause.epochs": "Too many epochs",
    "cause.epochs.do": "Train for fewer epochs, or with more questions.",
    "cause.collapse": "The vectors have moved together",
    "cause.collapse.do": "Lower the learning rate, raise the temperature, and look whether the "
    "training data is all of one kind.",
    "cause.query-gap": "The questions of training are unlike the real ones",
    "cause.query-gap.do": "Give real questions as examples and write the questions again.",
    "cause.ceiling": "The base is near the ceiling already",
    "cause.ceiling.do": "Fine-tuning has little left to give: improve retrieval instead (passages, "
    "hybrid search, reranking).",
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
    "split.train": "train",
    "split.dev": "dev",
    "split.test": "test",
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
    "card.limit.language": "Not for text in {language}: {message}.",
    "card.limit.card": "Made by embedtune; the full report of the run has intervals, losses and "
    "how to reproduce it.",
    # two runs
    "versus": "What differs between {one} and {other}",
    "versus.settings": "Settings",
    "versus.data": "Data",
    "versus.results": "Results",
    "versus.nothing": "Nothing.",
    "versus.field": "Setting",
    "versus.candidates": "Candidate of {other} minus candidate of {one}: {mean} {metric} (95 % "
    "interval {low} to {high}, p = {p}, {queries} questions in {groups} groups).",
    "versus.refused": "The figures are not comparable, so none are shown side by side:",
    "versus.fault.corpus": "the passages searched differ: {one} only in {a}, {other} only in {b}",
    "versus.fault.queries": "the {split} questions differ: {one} only in {a}, {other} only in {b}",
    "versus.fault.judgements": "{one} of the {split} questions are judged differently",
    "versus.fault.split": "{a} was measured on {one}, {b} on {other}",
    "versus.fault.metric": "{a} was decided by {one}, {b} by {other}",
    "versus.fault.grouping": "the groups of documents differ, which intervals go by",
    "versus.unjudged": "{run} has no results yet: there is nothing to compare.",
}
