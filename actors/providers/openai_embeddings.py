"""OpenAI Embeddings, and the servers that speak it. Vectors are asked for as base64, a quarter of what numbers take, and read as either. Pure."""

from array import array
from collections.abc import Mapping
from typing import Any

from .adapter import HttpRequest, optional_text, post, whole
from .errors import malformed, read_reply
from .keys import Secret
from .model import CallError, EmbeddingRequest, Embeddings, LimitSnapshot, Usage
from .openai_shared import limits_of, request_headers, request_id_of
from .parts import vector_from_base64
from .settings import ProviderSettings
from .vectors import all_finite, check_inputs, choose_options

_OWNED = frozenset({"model", "input", "encoding_format", "dimensions"})


class OpenAIEmbeddings:
    """`POST {base_url}/embeddings`."""

    max_inputs = 2048

    def encode(
        self, request: EmbeddingRequest, *, key: Secret | None, settings: ProviderSettings
    ) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_inputs(request, max_inputs=self.max_inputs, owned=_OWNED)
        if problem is not None:
            return problem
        options = choose_options(request, settings, dimensions="dimensions")
        if isinstance(options, CallError):
            return options
        body: dict[str, Any] = {"model": request.model, "input": list(request.inputs)}
        if "encoding_format" not in settings.unsupported:
            body["encoding_format"] = "base64"
        return post("/embeddings", request_headers(request, key, settings), {**body, **options})

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int, inputs: int
    ) -> Embeddings | CallError:
        """Return what a whole reply to so many inputs means. A vector that is missing, or there twice, spoils them all."""
        request_id = request_id_of(headers)
        data = read_reply(status, headers, body, at_ms=at_ms, request_id=request_id)
        if isinstance(data, CallError):
            return data
        items = data.get("data")
        if not isinstance(items, list):
            return malformed(f"HTTP {status} with JSON that holds no data", request_id=request_id)
        vectors = _in_order(items, inputs)
        if isinstance(vectors, str):
            return malformed(vectors, request_id=request_id)
        return Embeddings(
            vectors=vectors,
            usage=_usage(data.get("usage")),
            model=optional_text(data.get("model")),
            request_id=request_id,
        )

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:
        """Return what `x-ratelimit-*` says."""
        return limits_of(headers, at_ms)


def _in_order(items: list[Any], inputs: int) -> "tuple[array[float], ...] | str":
    """The vectors by the index they name (their place, where they name none), or what is wrong with them."""
    found: dict[int, array[float]] = {}
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            return f"vector {place} is not an object"
        index = item.get("index", place)
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < inputs or index in found:
            return f"vector {place} names index {index!r:.20}, which is not one of {inputs} inputs or was there before"
        vector = _vector(item.get("embedding"))
        if vector is None:
            return f"vector {index} is neither base64 of finite 32-bit floats nor a list of such numbers"
        found[index] = vector
    if len(found) != inputs:
        missing = next(index for index in range(inputs) if index not in found)
        return f"{len(found)} vectors for {inputs} inputs; the first without one is {missing}"
    if len({len(vector) for vector in found.values()}) > 1:
        return "the vectors are of different lengths"
    return tuple(found[index] for index in range(inputs))


def _vector(value: Any) -> "array[float] | None":
    try:
        vector = vector_from_base64(value) if isinstance(value, str) else array("f", value)
    except (ValueError, TypeError, OverflowError):
        return None
    return vector if len(vector) and all_finite(vector) else None


def _usage(value: Any) -> Usage | None:
    if not isinstance(value, dict) or "prompt_tokens" not in value:
        return None
    return Usage(input_uncached=whole(value.get("prompt_tokens")))
