"""``embedtune audit``: what is wrong with a data set, found before anybody trains on it.

Every check looks at the data as read and leaves findings; none changes anything. Leaks are found
by what two texts share that others do not (see ``leaks``), so that passages of one form with
other facts are none, and sentences in another order are one.
"""

from embedtune.datasets.audit_figures import balance_of, chance, copied, crowding, test_size
from embedtune.datasets.audit_judgements import contradictions, false_negatives, labels
from embedtune.datasets.audit_leaks import duplicates, leak_findings, leaks_between, same_pairs
from embedtune.datasets.audit_look import groups_of, look_at, sizes
from embedtune.datasets.audit_tokens import (
    by_language_of,
    lengths_of,
    model_name,
    other_languages,
    token_findings,
)
from embedtune.datasets.findings import Audit, ordered
from embedtune.datasets.source import Source
from embedtune.embed.tokens import Tokens
from embedtune.retrieve import Retriever


def audit(
    source: Source, *, tokens: Tokens | None = None, retriever: Retriever | None = None
) -> Audit:
    """Look a data set through.

    Args:
        tokens: Of the model that is to be trained or used; without it lengths, cuts and unknown
            tokens are not looked at.
        retriever: Over the data set's passages; it estimates how many unjudged passages answer as
            well. Without it only unjudged copies of relevant passages are counted.
    """
    look = look_at(source)
    leaks = [*leaks_between(look.passages, look.shared_passages, look),
             *leaks_between(look.queries, look.shared_queries, look)]  # fmt: skip
    by_language = by_language_of(look) if tokens else {}
    lengths = tuple(lengths_of(by_language, tokens)) if tokens else ()
    findings = [
        *same_pairs(look),
        *leak_findings(look, leaks),
        *duplicates(look),
        *contradictions(look),
        *labels(source),
        *false_negatives(look, retriever),
        *(token_findings(by_language, lengths, tokens) if tokens else ()),
        *other_languages(look),
        *copied(look),
        *crowding(look),
        *chance(look),
        *test_size(look),
    ]
    return Audit(
        name=look.data.name,
        format=source.format,
        passages=0 if source.format in ("labelled", "scored") else len(look.data.chunks),
        queries=sizes(look),
        groups={split: len(groups_of(look, split)) for split in look.data.qrels},
        model=model_name(tokens) if tokens else "",
        findings=ordered(findings),
        leaks=tuple(leaks),
        lengths=lengths,
        balance=tuple(balance_of(look)),
        notes=(*source.notes, *look.notes),
    )
