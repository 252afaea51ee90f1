"""The door to httpx: nothing else makes it load, and it loads only when the first client is opened.

httpx costs 60 ms and 8 MB, which a process that makes no call should not pay, and its command line, if rich is installed, 5 MB more, which
no worker should pay.
"""

import logging
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

from .settings import ProviderSettings

if TYPE_CHECKING:
    from .http_client import HttpClient

_import_lock = threading.Lock()


class Sending:
    """Whether any byte of a request may have left. Certain in one direction: False means that none did."""

    __slots__ = ("started",)

    def __init__(self) -> None:
        self.started = False


def import_httpx(*, own_process: bool) -> ModuleType:
    """Import httpx and quieten its loggers, which otherwise show URLs and headers. Callable from any thread.

    With `own_process` (the worker's, not a host's) httpx's command line, and with it rich and click, is kept from being imported; httpx
    itself expects that import to fail. A host that uses `httpx.main` is not disturbed.
    """
    with _import_lock:
        if own_process and "httpx" not in sys.modules and "httpx._main" not in sys.modules:
            sys.modules["httpx._main"] = None  # type: ignore[assignment] # the documented way to make an import fail
            try:
                import httpx
            finally:
                del sys.modules["httpx._main"]
        else:
            import httpx
        for name in ("httpx", "httpcore"):
            logger = logging.getLogger(name)
            if logger.level < logging.WARNING:
                logger.setLevel(logging.WARNING)
    return httpx


def open_client(settings: ProviderSettings, *, own_process: bool) -> "HttpClient":
    """Return a client for one provider's base URL; opens no connection yet. Raises UnsafeURLError. Call it in the event loop's thread."""
    import_httpx(own_process=own_process)
    from .http_client import HttpClient

    return HttpClient(settings.base_url, allow_private=settings.allow_private, proxy=settings.proxy)
