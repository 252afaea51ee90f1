"""What a call will take, guessed before it is made: the limiter reserves this and settles with the real usage.

Three bytes of UTF-8 per token over-estimates nearly every text with nearly every tokeniser, which is the safe side of a limit. An exact
tokeniser would need a download per model family. Pure.
"""

import json
import math

from .model import AnyRequest, EmbeddingRequest
from .parts import Image, Text, part_to_json

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 4
"""What the chat template adds around each message: role and separators."""


IMAGE_TOKENS = 1600
"""A picture at the size the providers reduce it to: Anthropic's upper bound (width x height / 750), which is above the others'."""


def estimate_input_tokens(request: AnyRequest) -> int:
    """Return a safe estimate of the input tokens of `request`: its messages, its tools and schema, its `extra`, its framing."""
    if isinstance(request, EmbeddingRequest):
        return sum(math.ceil(_size(text) / BYTES_PER_TOKEN) for text in request.inputs)
    size = images = 0
    for message in request.messages:
        for part in message.parts:
            match part:
                case Text(text):
                    size += _size(text)
                case Image():
                    images += 1
                case _:
                    size += _size(json.dumps(part_to_json(part), ensure_ascii=False, default=str))
    for more in (request.schema, request.extra, [tool.parameters for tool in request.tools] or None):
        if more:
            size += _size(json.dumps(more, ensure_ascii=False, default=str))
    size += sum(_size(tool.name) + _size(tool.description) for tool in request.tools)
    return math.ceil(size / BYTES_PER_TOKEN) + IMAGE_TOKENS * images + TOKENS_PER_MESSAGE * len(request.messages)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))
