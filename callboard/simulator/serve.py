"""The simulator as a process of its own: it announces its URL, and ends on a signal or with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable

from .config import SimulatorConfig
from .server import Clock, SimulatorServer


def announce(url: str) -> None:
    """Print the URL as one line on standard output, at once: a parent waits for it."""
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def run_forever(
    config: SimulatorConfig, on_ready: Callable[[str], None] = announce, *, watch_stdin: bool = False
) -> None:
    """Serve until SIGTERM or SIGINT, then return; call it from the main thread, which alone may handle signals.

    `on_ready` is called once with the URL when requests can be made. With `watch_stdin` it also returns when standard input ends, so
    that a child whose input is a pipe of its parent ends with it, however the parent died. Raises OSError when the port is taken or the
    journal cannot be opened, FaultError for a rule that cannot be understood.
    """
    asyncio.run(_serve(config, on_ready, watch_stdin=watch_stdin))


async def _serve(config: SimulatorConfig, on_ready: Callable[[str], None], *, watch_stdin: bool) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    server = SimulatorServer(config, Clock())
    await server.start()
    if watch_stdin:
        threading.Thread(target=_watch_stdin, args=(loop, ended), name="simulator-stdin", daemon=True).start()
    on_ready(server.url)
    await ended.wait()
    await server.stop()


def _watch_stdin(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    # os.read, not sys.stdin: a thread that holds the lock of sys.stdin while the interpreter ends is a fatal error.
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass  # a closed descriptor is an end of input too
    if not loop.is_closed():
        loop.call_soon_threadsafe(ended.set)
