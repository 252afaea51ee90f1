"""Ollama's embeddings, `/api/embed`. A text that is too long is an error here, and not cut off without a word as the server would. Pure."""

from collections.abc import Mapping

from .adapter import HttpRequest, optional_text, post, whole
from .errors import malformed, read_reply
from .keys import Secret
from .model import CallError, EmbeddingRequest, Embeddings, LimitSnapshot, Usage
from .ollama import request_headers
from .settings import ProviderSettings
from .vectors import check_inputs, choose_options, read_vectors

_OWNED = frozenset({"model", "input", "dimensions"})


class OllamaEmbeddings:
    """`POST {base_url}/api/embed`."""

    max_inputs = 512
    """The server has no limit; it works through them one after the other."""

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
        body = {"model": request.model, "input": list(request.inputs), "truncate": False, **options}
        return post("/api/embed", request_headers(request, key, settings), body)

    def decode_body(
        self, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int, inputs: int
    ) -> Embeddings | CallError:
        """Return what a whole reply to so many inputs means."""
        data = read_reply(status, headers, body, at_ms=at_ms)
        if isinstance(data, CallError):
            return data
        vectors = read_vectors(data.get("embeddings"), inputs, lambda item: item)
        if isinstance(vectors, str):
            return malformed(vectors)
        counted = data.get("prompt_eval_count")
        return Embeddings(
            vectors=vectors,
            usage=None if counted is None else Usage(input_uncached=whole(counted)),
            model=optional_text(data.get("model")),
        )

    def limits(self, headers: Mapping[str, str], at_ms: int) -> LimitSnapshot | None:  # noqa: ARG002 - the protocol's names
        """Return None: it says nothing of limits."""
        return None
