"""Calls that a provider goes on with when the connection is lost, and how to take them up again: by a handle, never by asking again.

A format that can do this implements `Resumable` beside `adapter.Adapter`; its stream decoder has `handle` and `position`. Pure.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from .adapter import HttpRequest, StreamDecoder
from .keys import Secret
from .model import Request
from .settings import ProviderSettings

HANDLE_GONE = "handle_gone"
"""The code of a `CallError`: the provider has ended or forgotten the call, so that only a new one can give its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """The provider's name for a call that it goes on with. It is no secret, but of use only with the account's key."""

    ref: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, for the ledger."""
        return {"ref": self.ref}

    @classmethod
    def from_json(cls, data: Any) -> Self | None:
        """The inverse of `to_json`; None for what is no handle."""
        ref = data.get("ref") if isinstance(data, dict) else None
        return cls(ref=ref) if isinstance(ref, str) and ref else None


class ResumableDecoder(StreamDecoder, Protocol):
    """A reader that can go on with a second stream of the same answer: what it has seen already is passed over."""

    position: int | None
    """The number of the last event read, None before the first."""

    @property
    def handle(self) -> Handle | None:
        """What the call can be taken up by again, None until it is known."""


@runtime_checkable
class Resumable(Protocol):
    """What a format adds whose provider goes on with calls. All methods are pure, and callable from any thread."""

    def goes_on(self, request: Request, settings: ProviderSettings) -> bool:
        """Return whether the provider goes on with such a call when the connection is lost."""

    def follow(
        self, handle: Handle, *, after: int | None, key: Secret | None, settings: ProviderSettings
    ) -> HttpRequest:
        """Return the request that follows a call from its beginning, or after the event of this number."""

    def look(self, handle: Handle, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest:
        """Return the request that asks how a call stands; `decode_body` reads the reply, and one that is under way as TRUNCATED."""

    def cancel(self, handle: Handle, *, key: Secret | None, settings: ProviderSettings) -> HttpRequest:
        """Return the request that ends a call. It may be sent more than once."""
