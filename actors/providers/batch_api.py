"""What a provider's batch API is to the rest: a few operations as values, and a wire format for them as pure functions.

The durable state machine over these (`open → sealed → uploaded → creating → submitted → ended → downloading → applied`) is the batch lane's;
here is only what one request to the provider says and what its reply means. An operation is performed by the provider's engine
(`exchange.py`), which has the keys, the deadlines and the size caps, and streams files from and to disk, so that no batch is ever held in
memory as a whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from importlib import import_module
from typing import Any, Protocol

from .adapter import HttpRequest
from .keys import Secret
from .model import Answer, AnyRequest, CallError, ErrorClass
from .settings import ProviderSettings

MAX_RESULTS_BYTES = 2_000_000_000
MAX_LINE_BYTES = 64 * 1024 * 1024


class BatchPhase(StrEnum):
    """How far a batch is, whatever the provider calls it. ENDED: its results may be fetched. FAILED: it was refused as a whole, nothing ran."""

    RUNNING = "running"
    ENDED = "ended"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One request of a batch. `custom_id` is of [A-Za-z0-9_-]{1,64}: the only characters that every provider takes."""

    custom_id: str
    request: AnyRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """What the provider says of a batch. `results`: what its results are fetched by, each in a `FetchResults`. Times in epoch milliseconds.

    `error` says why it FAILED (or ended early), `failure` of what class that is: RATE means that the same batch may be asked for again later,
    anything else that it must be changed. `bad_lines` are the lines of the file (from 1) that it was refused for, where the provider names them.
    """

    batch_id: str
    phase: BatchPhase
    done: int = 0
    total: int = 0
    results: tuple[str, ...] = ()
    created_at: int | None = None
    expires_at: int | None = None
    error: str | None = None
    failure: ErrorClass | None = None
    bad_lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFile:
    """Send the file at `path` (JSON lines, as `BatchFormat.line` writes them). Gives `FileUploaded`. Only where `BatchFormat.uploads`."""

    path: str = field(repr=False)
    tag: str


@dataclass(frozen=True, slots=True)
class FileUploaded:
    """The provider's name for the file."""

    file_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateBatch:
    """Have the requests of an uploaded file, or those in the file at `path`, done. `tag` is our own name for it. Gives `BatchStatus`."""

    tag: str
    model: str
    endpoint: str
    file_id: str | None = None
    path: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FindBatch:
    """Whether a batch that was asked for under this tag, not before `since` (epoch ms) and with so many requests, exists. Gives `BatchFound`.

    `known`: ids of batches that are accounted for, and so are not it: where there is no tag, another of ours may look alike.
    """

    tag: str
    since: int
    requests: int
    known: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFound:
    """`certain` False: this API cannot say (none was found, and one may still be there; or more than one might be it).

    A provider that has just been asked may not list the batch yet: "none, for certain" holds for what was asked for some minutes ago.
    """

    status: BatchStatus | None
    certain: bool


@dataclass(frozen=True, slots=True)
class PollBatch:
    """How far it is. Gives `BatchStatus`."""

    batch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResults:
    """Write a results file to `path` (mode 0600), from its beginning. `ref` is one of `BatchStatus.results`. Gives `ResultsFetched`.

    The file is there only if it is whole; another of that name is replaced. More than `max_bytes` is a failure.
    """

    batch_id: str
    ref: str
    path: str = field(repr=False)
    max_bytes: int = MAX_RESULTS_BYTES


@dataclass(frozen=True, slots=True)
class ResultsFetched:
    """How many bytes it has."""

    size: int


@dataclass(frozen=True, slots=True)
class CancelBatch:
    """Have it ended early. Gives `BatchStatus`; what was done by then is kept and paid for. CONFLICT, or no effect, if it is over."""

    batch_id: str


@dataclass(frozen=True, slots=True)
class DeleteFile:
    """Have something that `BatchFormat.kept` named forgotten. Gives `FileDeleted`, also if it is gone already."""

    file_id: str


@dataclass(frozen=True, slots=True)
class FileDeleted:
    """It is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """One line of the results."""

    custom_id: str
    outcome: Answer | CallError


Operation = UploadFile | CreateBatch | FindBatch | PollBatch | FetchResults | CancelBatch | DeleteFile
Report = FileUploaded | BatchStatus | BatchFound | ResultsFetched | FileDeleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A request whose body is `head`, the file at `path`, and `tail`, streamed, so that it need not fit in memory.

    `array`: the lines of the file become the members of a JSON array: their ends become commas, and the last one's is left out.
    """

    request: HttpRequest
    head: bytes = field(repr=False)
    path: str = field(repr=False)
    tail: bytes = field(repr=False)
    array: bool = False


class LineReader(Protocol):
    """Takes the results out of a reply that holds them among other things. Not thread-safe."""

    @property
    def held(self) -> int:
        """How many bytes it keeps in memory."""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the results that are whole now, each as one line without its end."""

    def rest(self) -> bytes:
        """Return everything else: JSON, if the reply was whole."""


class BatchFormat(Protocol):
    """The batch API of one wire format. All methods are pure, and callable from any thread."""

    uploads: bool
    """Whether the requests are uploaded as a file before the batch is created."""
    max_requests: int
    max_bytes: int
    one_model: bool
    """Whether all requests of a batch must be for one model (and one endpoint)."""

    def endpoint(self, request: AnyRequest) -> str | None:
        """Return what `CreateBatch.endpoint` is for such a request; all of a batch have the same. None: the batch API does not take it."""

    def line(self, line: BatchLine, *, settings: ProviderSettings) -> bytes | CallError:
        """Return a request as one line of the file, without the line's end, or the reason why it cannot be sent."""

    def encode(
        self, operation: Operation, *, key: Secret | None, settings: ProviderSettings, cursor: str | None = None
    ) -> HttpRequest | Upload | CallError:
        """Return the request of an operation. `cursor`: the page to go on with, from `more`."""

    def decode(
        self, operation: Operation, status: int, headers: Mapping[str, str], body: bytes, *, at_ms: int
    ) -> Report | CallError:
        """Return what a whole reply means, whatever its status. Not for a FindBatch or FetchResults that succeeded."""

    def more(self, operation: FindBatch, page: bytes) -> str | None:
        """Return the cursor of the next page that must be looked at, None when what was seen up to this one decides."""

    def found(self, operation: FindBatch, pages: Sequence[bytes], *, complete: bool) -> BatchFound | CallError:
        """Return what all the pages say. `complete` False: there are more, which nobody will read."""

    def reader(self, operation: Operation) -> LineReader | None:
        """Return what takes the results out of the operation's reply, None where a reply of results is nothing but lines."""

    def results(self, lines: Iterator[bytes], *, at_ms: int) -> Iterator[BatchResult | CallError]:
        """Read the lines of a results file. What is no result at all (a broken line) is given as an error, and the rest goes on.

        Lines are in no order, may come twice or not at all. Where a request was never tried, its error is CANCELLED and not `sent`
        (`code`: batch_expired or batch_cancelled). Nothing says how many vectors an embedding should have: count them.
        """

    def kept(self, *, file_id: str | None, batch_id: str | None, results: tuple[str, ...]) -> tuple[str, ...]:
        """Return what the provider keeps of a batch that is done with: each can be forgotten by a `DeleteFile`."""


_FORMATS: dict[str, tuple[str, str]] = {
    "openai-chat": (".openai_batches", "OpenAIBatches"),
    "openai-responses": (".openai_batches", "OpenAIResponsesBatches"),
    "anthropic-messages": (".anthropic_batches", "AnthropicBatches"),
    "gemini": (".gemini_batches", "GeminiBatches"),
}


def batch_format_for(wire: str) -> BatchFormat | None:
    """Return the batch API that goes with a wire format, None if its provider has none."""
    if wire not in _FORMATS:
        return None
    module, name = _FORMATS[wire]
    found: Any = getattr(import_module(module, __package__), name)()
    return found  # type: ignore[no-any-return]  # a class of the table above
