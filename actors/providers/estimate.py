"""What a call will take, guessed before it is made: the limiter reserves this and settles with the real usage.

Three bytes of UTF-8 per token over-estimates nearly every text with nearly every tokeniser, which is the safe side of a limit. An exact
tokeniser would need a download per model family. Pure.
"""

import json
import math

from .model import Request

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 4
"""What the chat template adds around each message: role and separators."""


def estimate_input_tokens(request: Request) -> int:
    """Return a safe estimate of the input tokens of `request`: its text, its `extra` (tools and schemas are input), its framing."""
    size = sum(len(message.content.encode("utf-8", "replace")) for message in request.messages)
    if request.extra:
        size += len(json.dumps(request.extra, ensure_ascii=False, default=str).encode("utf-8", "replace"))
    return math.ceil(size / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(request.messages)


def estimate_output_tokens(request: Request, *, default: int, average: float | None = None) -> int:
    """Return the output tokens to reserve: half as much again as the recent `average` of such calls, never above the request's limit.

    `default` stands in for a request without a limit.
    """
    limit = default if request.max_output is None else request.max_output
    return limit if average is None else min(limit, math.ceil(average * 1.5))
