"""The OpenAI Embeddings wire format: many texts in, a vector for each out, as numbers or as base64 of 32-bit floats."""

# ruff: noqa: D102 - wire.Wire documents every method

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any

from .extractive import estimate_tokens
from .openai_chat import OpenAIChat, read_model
from .vectors import DIMENSIONS, embed
from .wire import Answer, Call, WireError, dump

MAX_INPUTS = 2048
MAX_INPUT_TOKENS = 8192
MAX_TOKENS = 300_000


class OpenAIEmbeddings(OpenAIChat):
    """Embeddings. See `wire.Wire` for what each method promises."""

    def read(self, body: Any, headers: Mapping[str, str]) -> Call:  # noqa: ARG002 - this format has nothing in its headers
        model = read_model(body)
        given = body.get("input")
        inputs = [given] if isinstance(given, str) else given
        if not isinstance(inputs, list) or not inputs or not all(isinstance(text, str) for text in inputs):
            raise WireError(400, "Invalid 'input': expected a string or an array of strings.", param="input")
        if len(inputs) > MAX_INPUTS:
            raise WireError(
                400, f"Invalid 'input': an array of at most {MAX_INPUTS} strings, got {len(inputs)}.", param="input"
            )
        counts = [estimate_tokens(text) for text in inputs]
        if 0 in counts:
            raise WireError(400, f"Invalid 'input[{counts.index(0)}]': input cannot be an empty string.", param="input")
        if max(counts) > MAX_INPUT_TOKENS:
            raise WireError(
                400,
                f"Invalid 'input[{counts.index(max(counts))}]': maximum input length is {MAX_INPUT_TOKENS} tokens.",
                param="input",
            )
        if sum(counts) > MAX_TOKENS:
            raise WireError(400, f"Requested {sum(counts)} tokens, max {MAX_TOKENS} tokens per request.", param="input")
        shape = body.get("encoding_format", "float")
        if shape not in ("float", "base64"):
            raise WireError(400, "Invalid 'encoding_format': expected 'float' or 'base64'.", param="encoding_format")
        dimensions = body.get("dimensions")
        if dimensions is not None and (not isinstance(dimensions, int) or not 1 <= dimensions <= 4096):
            raise WireError(400, "Invalid 'dimensions': expected an integer from 1 to 4096.", param="dimensions")
        return Call(
            model=model,
            text=inputs[0],
            all_text="\n".join(inputs),
            input_tokens=sum(counts),
            max_tokens=None,
            stream=False,
            stop=(),
            include_usage=True,
            inputs=tuple(inputs),
            dimensions=dimensions,
            as_base64=shape == "base64",
        )

    def completion(self, call: Call, answer: Answer, number: int, created: int) -> bytes:  # noqa: ARG002 - no time or name in this format
        vectors = [embed(text, call.dimensions or DIMENSIONS) for text in call.inputs]
        reply: dict[str, Any] = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _packed(vector) if call.as_base64 else vector}
                for index, vector in enumerate(vectors)
            ],
            "model": call.model,
        }
        if answer.with_usage:
            reply["usage"] = {"prompt_tokens": answer.input_tokens, "total_tokens": answer.input_tokens}
        return dump(reply)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
