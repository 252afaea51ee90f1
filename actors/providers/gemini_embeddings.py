"""Gemini's embeddings, `batchEmbedContents`: one sub-request for each text, all of one model. Pure."""

from collections.abc import Mapping
from typing import Any

from .adapter import HttpRequest, optional_text, post, whole
from .errors import malformed, read_reply
from .gemini import model_path, request_headers
from .keys import Secret
from .model import CallError, EmbeddingRequest, Embeddings, LimitSnapshot, Usage
from .settings import ProviderSettings
from .vectors import check_inputs, choose_options, read_vectors

_OWNED = frozenset({"model", "content", "outputDimensionality", "requests"})


class GeminiEmbeddings:
    """`POST {base_url}/v1beta/models/{model}:batchEmbedContents`. `extra` (`taskType`, `title`) goes into each sub-request."""

    max_inputs = 100

    def encode(
        self, request: EmbeddingRequest, *, key: Secret | None, settings: ProviderSettings
    ) -> HttpRequest | CallError:
        """Return the HTTP request, or the reason why it is not sent."""
        problem = check_inputs(request, max_inputs=self.max_inputs, owned=_OWNED)
        if problem is not None:
            return problem
        path = model_path(request.model)
        if isinstance(path, CallError):
            return path
        options = choose_options(request, settings, dimensions="outputDimensionality")
        if isinstance(options, CallError):
            return options
        shared = {"model": path.removeprefix("/v1beta/"), **options}
        body = {"requests": [{**shared, "content": {"parts": [{"text": text}]}} for text in request.inputs]}
        return post(path + ":batchEmbedContents", request_headers(request, key, settings), body)

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int, inputs: int
    ) -> Embeddings | CallError:
        """Return what a whole reply to so many inputs means. Usage is None where the reply has none, as most have."""
        data = read_reply(status, headers, body, at_ms=at_ms)
        if isinstance(data, CallError):
            return data
        vectors = read_vectors(data.get("embeddings"), inputs, _values)
        if isinstance(vectors, str):
            return malformed(vectors)
        usage = data.get("usageMetadata")
        counted = usage.get("promptTokenCount") if isinstance(usage, dict) else None
        return Embeddings(
            vectors=vectors,
            usage=None if counted is None else Usage(input_uncached=whole(counted)),
            model=optional_text(data.get("modelVersion")),
        )

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:  # noqa: ARG002 - the protocol's names
        """Return None: it says nothing of limits until they are reached."""
        return None


def _values(item: Any) -> Any:
    return item.get("values") if isinstance(item, dict) else None
