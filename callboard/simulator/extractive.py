"""The built-in model: it returns the salient sentences of what it was given, and nothing else.

A pretend language model would tempt a reader to judge its answers. An extract can be read, checked against its input by eye, and is the
same every time, which is what a demonstration and a test need. No thread, no clock, no I/O, no randomness.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

NOTHING_TO_EXTRACT = "The message has no text to extract from."
"""What is said of an empty message: the only sentence that is not taken from the input."""

# A sentence ends at its punctuation (with closing quotes) before white space, at CJK punctuation, or at the end of its line.
_SENTENCE = re.compile(r"[^\n]*?(?:[.!?…]+[\"'”’)\]]*(?=\s|$)|[。！？]+)|[^\n]+")  # noqa: RUF001 - these marks are meant
# A line that goes on in lower case was wrapped by an editor, and its sentence continues.
_WRAPPED = re.compile(r"[ \t]*\n[ \t]*(?=[a-z])")
_WORD = re.compile(r"[^\W_]+")
_PIECE = re.compile(r"\S{1,24}\s*|\s+")
_SHORT_WORD = 3
"""Words up to this length are left out of the scores: a stop-word list that needs no language."""


@dataclass(frozen=True, slots=True)
class Extract:
    """The text, and whether it was cut at the token limit."""

    text: str
    truncated: bool


def estimate_tokens(text: str) -> int:
    """Return the simulator's count of tokens: UTF-8 bytes divided by four, rounded up. It is an estimate, and is named so everywhere."""
    return -(-len(text.encode("utf-8", "replace")) // 4)


def extract(text: str, max_tokens: int) -> Extract:
    """Return the most salient third of the sentences (at least one) in their original order, cut at `max_tokens` estimated tokens.

    A prompt's instruction comes first, so when there is anything after the first paragraph (or, in a text of one paragraph, after the
    first line), the sentences are taken from there; the words of the instruction still count in the scores.
    """
    text = text.strip()
    head, rest = _split_instruction(text)
    sentences = _sentences(rest) or _sentences(head)
    if not sentences:
        return _cut(NOTHING_TO_EXTRACT, max_tokens)
    frequency = Counter(_salient_words(text))
    scored = sorted(range(len(sentences)), key=lambda index: (-_score(sentences[index], frequency), index))
    chosen = sorted(scored[: -(-len(sentences) // 3)])
    return _cut(" ".join(sentences[index] for index in chosen), max_tokens)


def cut_at_stop(text: str, stops: tuple[str, ...]) -> tuple[str, str | None]:
    """Return the text before the first stop sequence in it, and that sequence, or the whole text and None."""
    found = [(position, stop) for stop in stops if stop and (position := text.find(stop)) >= 0]
    if not found:
        return text, None
    position, stop = min(found)
    return text[:position], stop


def pieces(text: str) -> list[tuple[int, str]]:
    """Split a text into what a stream sends: words with their white space, each with its share of the tokens.

    The pieces joined are the text, and their tokens add up to `estimate_tokens(text)`.
    """
    result: list[tuple[int, str]] = []
    sent_bytes = 0
    for piece in _PIECE.findall(text):
        before = -(-sent_bytes // 4)
        sent_bytes += len(piece.encode("utf-8", "replace"))
        result.append((-(-sent_bytes // 4) - before, piece))
    return result


def _split_instruction(text: str) -> tuple[str, str]:
    paragraphs = re.split(r"\n\s*\n", text, maxsplit=1)
    parts = paragraphs if len(paragraphs) > 1 else text.split("\n", 1)
    return (parts[0], parts[1]) if len(parts) > 1 else (text, "")


def _sentences(text: str) -> list[str]:
    found = (sentence.strip() for sentence in _SENTENCE.findall(_WRAPPED.sub(" ", text)))
    return [sentence for sentence in found if sentence]


def _salient_words(text: str) -> list[str]:
    return [word for word in _WORD.findall(text.lower()) if len(word) > _SHORT_WORD]


def _score(sentence: str, frequency: Counter[str]) -> float:
    words = _salient_words(sentence)
    return sum(frequency[word] for word in words) / len(words) if words else 0.0


def _cut(text: str, max_tokens: int) -> Extract:
    raw = text.encode("utf-8", "replace")
    if len(raw) <= max_tokens * 4:
        return Extract(text, truncated=False)
    kept = raw[: max(max_tokens, 0) * 4].decode("utf-8", "ignore")
    at_a_word = kept.rsplit(None, 1)[0] if " " in kept.strip() and not text[len(kept)].isspace() else kept
    return Extract(at_a_word.rstrip(), truncated=True)
