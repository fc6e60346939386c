"""Training examples from documents that nobody has asked about yet."""

import random
import re
from collections.abc import Iterable

from embedtune.records import Chunk, Pair, content_id

# A sentence ends at Chinese marks, at Latin ones before white space, and at a line's end.
SENTENCE = re.compile(
    r"[^。！？!?；\n.]*(?:[.!?](?!\s|$)[^。！？!?；\n.]*)*(?:[。！？!?；.]+|\n|$)"
)
FEWEST_LETTERS = {True: 5, False: 15}  # of a sentence worth asking with; True: ideographs
IDEOGRAPH = re.compile(r"[\u3400-\u9fff\U00020000-\U000323af]")
LETTER = re.compile(r"[^\W_]")


def cropped_pairs(chunks: Iterable[Chunk], *, seed: int) -> list[Pair]:
    """One sentence of each passage as the query, the passage without it as what answers it.

    The inverse cloze task (Lee et al., ACL 2019): title and further sentences stay, the sentence
    leaves all places where it stands. Which sentence is drawn depends on ``seed`` and the
    passage's id alone. A passage without a second sentence worth asking with gives no pair.

    Returns:
        Pairs in the order of ``chunks``. ``query`` is an id of its own for each sentence, which no
        query of a data set has; ``chunk`` is the passage, so that whoever masks by chunk never
        holds a passage against its own sentence.
    """
    pairs = []
    for chunk in chunks:
        sentences = sentences_of(chunk.text)
        drawn = random.Random(f"{seed}/{chunk.id}")
        drawn.shuffle(sentences)
        for sentence in sentences:
            rest = chunk.text.replace(sentence, " ")
            if not sentences_of(rest):
                continue
            positive = f"{chunk.title} {rest}".strip()
            query = content_id("crop", chunk.id, sentence)
            pairs.append(Pair(query, chunk.id, sentence, positive))
            break
    return pairs


def sentences_of(text: str) -> list[str]:
    """The different sentences with enough letters to be asked with, in order, stripped."""
    found = dict.fromkeys(match[0].strip() for match in SENTENCE.finditer(text))
    return [sentence for sentence in found if _long_enough(sentence)]


def _long_enough(sentence: str) -> bool:
    ideographs = len(IDEOGRAPH.findall(sentence))
    if ideographs >= FEWEST_LETTERS[True]:
        return True
    return len(LETTER.findall(sentence)) >= FEWEST_LETTERS[False]
