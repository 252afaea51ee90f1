"""Embeddings without a model: a text's words, hashed into a vector of length 1. Texts that share words are near each other.

The same text gives the same vector in every process and on every machine, so a search over them can be tested. They know no meaning:
"car" is as far from "automobile" as from "rain".
"""

from __future__ import annotations

import hashlib
import math
import re

DIMENSIONS = 64
"""How many numbers a vector has when the request does not say."""

_WORD = re.compile(r"[^\W_]+")


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Return the vector of a text; without any word, that of an empty word."""
    vector = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [""]:
        digest = hashlib.sha256(word.encode("utf-8", "replace")).digest()
        vector[int.from_bytes(digest[:4], "big") % dimensions] += 1.0 if digest[4] & 1 else -1.0
        vector[int.from_bytes(digest[5:9], "big") % dimensions] += 0.5
    length = math.sqrt(sum(value * value for value in vector))
    if length == 0:  # words that cancel each other out
        vector[0] = length = 1.0
    return [value / length for value in vector]
