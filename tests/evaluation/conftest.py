import pytest

from embedtune.records import Chunk, Query, RetrievalSet

PASSAGES = {
    "c1": "The battery is charged overnight in the shed",
    "c2": "Invoices are paid within thirty days of receipt",
    "c3": "保护投资者的合法权益",
    "c4": "Holiday requests go to the team lead by Friday",
    "c5": "发行人应当披露年度报告",
    "c6": "The robot returns to its dock when rain falls",
}
QUESTIONS = {
    "q1": ("when is the battery charged", "c1"),
    "q2": ("how soon are invoices paid", "c2"),
    "q3": ("投资者权益怎样保护", "c3"),
    "q4": ("who gets holiday requests", "c4"),
    "q5": ("年度报告由谁披露", "c5"),
    "q6": ("what does the robot do in rain", "c6"),
}


def make_set(
    passages: dict[str, str],
    questions: dict[str, tuple[str, str]],
    splits: dict[str, list[str]] | None = None,
) -> RetrievalSet:
    chunks = tuple(Chunk(id, f"doc-{id}", 0, len(t), "", t) for id, t in passages.items())
    queries = tuple(Query(id, text) for id, (text, _) in questions.items())
    splits = splits or {"test": list(questions)}
    qrels = {
        split: {query: {questions[query][1]: 1} for query in ids} for split, ids in splits.items()
    }
    return RetrievalSet("small", chunks, queries, qrels)


@pytest.fixture
def small() -> RetrievalSet:
    return make_set(PASSAGES, QUESTIONS, {"dev": ["q1", "q3"], "test": ["q2", "q4", "q5", "q6"]})
