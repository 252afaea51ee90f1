"""The built-in job type `embed`: vectors for texts. Needs no thread; written against the effect protocol.

`data`: `{"input": "…"}` or `{"inputs": ["…", …]}`, and optionally `dimensions` and `extra`. The result: `{"embedding": […]}` or
`{"embeddings": [[…], …]}`, and `model` and `usage` (null where a provider did not say).
More texts than one request may hold are asked for in several calls, each a step named after the texts in it: what one of them brought is kept.
"""

from array import array
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from ...persistence.model import ClaimedJob
from ..providers.adapter import embedder_for
from ..providers.estimate import estimate_input_tokens
from ..providers.model import CallError, EmbeddingRequest, Embeddings, ErrorClass, Usage
from ..settings import CompanySettings, UnknownModelError, route
from .chat_data import InvalidDataError
from .effects import CallFailedError, Effect, Embed, InputsPerCall

TOKENS_PER_CALL = 270_000
"""Tokens of one request, by a safe estimate: OpenAI takes 300,000 (reference: A.4), less a tenth."""
OWN_MOST = 2048
"""Texts of one request to a host's own provider."""
_FIELDS = ("input", "inputs", "dimensions", "extra")


def embed(job: ClaimedJob) -> Generator[Effect, Any, dict[str, Any]]:
    """Make the calls, return the vectors."""
    asked = parse(job.data)
    found = yield from vectors_of(asked)
    vectors = [numbers(vector) for vector in found.vectors]
    told = found.to_json()
    one = {"embedding": vectors[0]} if "input" in job.data else {"embeddings": vectors}
    return {**one, "model": told["model"], "usage": told["usage"]}


def parse(data: Any) -> Embed:
    """Turn an embed job's data into what it asks. Pure. Raises InvalidDataError, naming the field."""
    if not isinstance(data, dict):
        raise InvalidDataError(f"data: expected an object, got {type(data).__name__}")
    unknown = sorted(set(data) - set(_FIELDS))
    if unknown:
        raise InvalidDataError(f"data.{unknown[0]}: unknown field (known: {', '.join(_FIELDS)})")
    if ("input" in data) == ("inputs" in data):
        raise InvalidDataError("data: give either input or inputs")
    inputs = data["inputs"] if "inputs" in data else [data["input"]]
    if not isinstance(inputs, list) or not inputs:
        raise InvalidDataError("data.inputs: expected a list of at least one text")
    for index, text in enumerate(inputs):
        where = f"data.inputs[{index}]" if "inputs" in data else "data.input"
        if not isinstance(text, str):
            raise InvalidDataError(f"{where}: expected text, got {type(text).__name__}")
        if not text:
            raise InvalidDataError(f"{where}: is empty, which no provider takes")
    dimensions, extra = data.get("dimensions"), data.get("extra")
    whole = isinstance(dimensions, int) and not isinstance(dimensions, bool)
    if dimensions is not None and not (whole and dimensions >= 1):
        raise InvalidDataError(f"data.dimensions: expected a whole number of at least 1, got {dimensions!r:.60}")
    if extra is not None and not isinstance(extra, dict):
        raise InvalidDataError(f"data.extra: expected dict, got {type(extra).__name__}")
    return Embed(step="embed", inputs=tuple(inputs), dimensions=dimensions, extra=extra or {})


def vectors_of(asked: Embed) -> Generator[Effect, Any, Embeddings]:
    """The vectors of all texts, in their order, by as many calls as it takes."""
    if not asked.inputs:
        return Embeddings(vectors=())
    most: int = yield InputsPerCall(asked.model)
    parts: list[Embeddings] = []
    for first, last in spans(asked.inputs, most):
        step = f"{asked.step}[{first}:{last}]"
        part: Embeddings = yield replace(asked, step=step, inputs=asked.inputs[first:last])
        parts.append(part)
    return parts[0] if len(parts) == 1 else joined(parts)


def spans(inputs: Sequence[str], most: int, tokens: int = TOKENS_PER_CALL) -> Iterator[tuple[int, int]]:
    """Which texts go together: at most `most` of them, and at most so many tokens unless one alone has more. Pure."""
    first = size = 0
    for place, text in enumerate(inputs):
        weight = estimate_input_tokens(EmbeddingRequest(model="", inputs=(text,)))
        if place > first and (place - first >= most or size + weight > tokens):
            yield first, place
            first, size = place, 0
        size += weight
    if inputs:
        yield first, len(inputs)


def joined(parts: Sequence[Embeddings]) -> Embeddings:
    """The answers of several calls as one. Usage is known if it is of every part. Pure."""
    usages = [part.usage for part in parts]
    total = Usage(**{name: sum(getattr(usage, name, 0) for usage in usages) for name in Usage.__slots__})
    return replace(
        parts[-1],
        vectors=tuple(vector for part in parts for vector in part.vectors),
        usage=None if None in usages else total,
        total_ms=None,
    )


def inputs_per_call(settings: CompanySettings, model: str | None) -> int:
    """The most texts that one request may hold for a model. Raises CallFailedError where there are no vectors to be had."""
    try:
        where = route(settings, model)
    except UnknownModelError as error:
        raise _refused(ErrorClass.NOT_FOUND, f"model: {error}") from None
    wire = settings.providers[where.provider].wire
    if wire == "own":
        return OWN_MOST  # whether it has an `embed` is known to its class alone
    embedder = embedder_for(wire)
    if embedder is None:
        raise _refused(
            ErrorClass.INVALID, f"provider {where.provider!r} makes no embeddings; name a model of one that does"
        )
    return embedder.max_inputs


def numbers(vector: "array[float]") -> list[float]:
    """32-bit floats in few digits: seven where these say exactly this number, else nine, which always do. Pure."""
    short = [float(f"{number:.7g}") for number in vector]
    exact = array("f", short)
    return [
        few if same == number else float(f"{number:.9g}")
        for few, same, number in zip(short, exact, vector, strict=True)
    ]


def _refused(kind: ErrorClass, message: str) -> CallFailedError:
    return CallFailedError(CallError(kind=kind, message=message, sent=False))
