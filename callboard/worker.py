"""The standalone supervisor process: one company, its signals, its exit code.

The main thread does nothing but wait: for a signal, for the end of stdin (the parent has gone), for the board to be empty (`--once`), or
for the company to give up. It returns the exit code itself, because an exit from within an actor would be lost.
"""

import contextlib
import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable

from callboard.actors.providers.settings import ProviderLoadError
from callboard.actors.providers.transport import import_httpx
from callboard.actors.runner.handlers import HandlerLoadError
from callboard.config import Config
from callboard.embedded import CompanyFailedError, Supervisor
from callboard.persistence.errors import DatabaseError

logger = logging.getLogger(__name__)

EXIT_OK = 0
EXIT_UNFINISHED = 1
EXIT_GAVE_UP = 70
"""`EX_SOFTWARE` of sysexits.h: the company gave up, and a fresh process may do better."""
EXIT_CONFIG = 78
"""`EX_CONFIG`: starting it again will not help."""

LOOK_EVERY = 0.2
"""Seconds between two looks at whether the work of `--once` is done."""
ONCE_WAITS_MS = 60_000
"""`--once` waits for what becomes due within this time (a retry's back-off, a limit); what is later is left on the board."""
ORPHANED_DRAIN = 1.0
"""Seconds running jobs have when the parent has gone."""

YOUNG_OBJECTS = 10_000
"""Objects made after which Python looks for cycles among the young. With its 700 it would look some fifty times in a hundred calls, which leave none."""


def run_worker(
    config: Config, *, once: bool = False, watch_stdin: bool = False, on_ready: Callable[[], None] | None = None
) -> int:
    """Run until told to stop, and return the exit code. Main thread only: it installs signal handlers.

    SIGTERM and SIGINT drain; a second one hands unfinished jobs back at once. `watch_stdin`: the end of stdin means that the parent has
    gone. systemd is told when it is ready and when it stops. 0: stopped in order (`once`: and everything that could be done was).
    1: `once` left jobs that cannot run here or are not due. 70: gave up. 78: bad configuration or database.
    """
    import_httpx(own_process=True)
    ending = _Ending()
    ending.listen()
    supervisor = Supervisor(config, own_process=True, on_failure=lambda _: ending.wake())
    try:
        supervisor.start()
    except (DatabaseError, HandlerLoadError, ProviderLoadError, OSError) as error:
        return _say(f"callboard: error: {error}", EXIT_CONFIG)
    except CompanyFailedError as error:
        return _say(f"callboard: error: {error}", EXIT_GAVE_UP)
    # What is here now, tens of thousands of objects of modules and libraries, is here to stay: a full collection that goes through it holds up
    # every thread for some 50 ms, in the midst of calls.
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    _notify_systemd("READY=1")
    if on_ready is not None:
        on_ready()
    if watch_stdin:
        threading.Thread(target=_until_stdin_ends, args=(ending,), name="parent-watch", daemon=True).start()
    left = _wait(supervisor, ending, once)
    if supervisor.failure is not None:
        return _say(f"callboard: gave up: {supervisor.failure}", EXIT_GAVE_UP)
    _notify_systemd("STOPPING=1")
    _stop(supervisor, ending, config)
    return EXIT_OK if not left else _say(f"callboard: left on the board: {left}", EXIT_UNFINISHED)


class _Ending:
    """What ends the process: told by signals and threads, waited for by the main thread.

    Woken through a pipe that the C signal handler writes to: a lock or an event would be waited for in vain by a main thread that a signal
    reaches between its last look and its sleep.
    """

    def __init__(self) -> None:
        self.signals = 0
        self.orphaned = False
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT. Main thread only."""
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        self.signals += 1

    def wake(self) -> None:
        """End a wait. Any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            os.write(self._wake, b"\0")

    def wait(self, timeout: float | None) -> None:
        """Until something may have changed."""
        select.select([self._woken], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)

    @property
    def wanted(self) -> bool:
        return self.signals > 0 or self.orphaned


def _wait(supervisor: Supervisor, ending: _Ending, once: bool) -> str:
    """Wait for a reason to end. Returns what `once` leaves undone, empty if nothing."""
    while not ending.wanted and supervisor.failure is None:
        ending.wait(LOOK_EVERY if once else None)
        if once and not ending.wanted and supervisor.failure is None:
            try:
                left = _left_undone(supervisor)
            except CompanyFailedError:
                continue  # the dispatcher is restarting, or the company has given up: look again
            if left is not None:
                return left
    return ""


def _left_undone(supervisor: Supervisor) -> str | None:
    """None while there is something to do or to wait for; else what cannot be done here, empty if nothing."""
    status = supervisor.status()
    if not status.settled or status.store_problem is not None:
        return None
    soon = supervisor.now_ms() + ONCE_WAITS_MS
    if status.next_due_ms is not None and status.next_due_ms <= soon:
        return None
    if any(until <= soon for until in status.held_keys.values()):
        return None
    waiting = {lane.lane: lane.waiting for lane in status.lanes}
    reasons = [f"{waiting[lane]} jobs: {reason}" for lane, reason in status.unroutable.items() if waiting.get(lane)]
    for lanes, reason in ((status.paused, "in paused queues"), (status.elsewhere, "left to other workers by [claims]")):
        if left := sum(waiting.get(lane, 0) for lane in lanes):
            reasons.append(f"{left} jobs {reason}")
    others = sum(
        n for lane, n in waiting.items() if lane not in {*status.unroutable, *status.paused, *status.elsewhere}
    )
    if others:
        reasons.append(f"{others} held by limits")
    if status.next_due_ms is not None:
        reasons.append("jobs that are not due for a minute or more")
    return "; ".join(reasons)


def _stop(supervisor: Supervisor, ending: _Ending, config: Config) -> None:
    """Drain on a thread of its own, so that a second signal can hasten it."""
    timeout = ORPHANED_DRAIN if ending.orphaned else config.drain_timeout
    before = ending.signals
    drain = threading.Thread(target=supervisor.stop, args=(timeout,), name="drain", daemon=True)
    drain.start()
    hastened = False
    while drain.is_alive():
        drain.join(0.1)
        if ending.signals > max(before, 1) and not hastened:
            hastened = True
            supervisor.hasten()


def _until_stdin_ends(ending: _Ending) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    ending.orphaned = True
    ending.wake()


def _notify_systemd(state: str) -> None:
    """sd_notify(3): one datagram to the socket systemd names; nothing without it."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.connect("\0" + address[1:] if address.startswith("@") else address)
            notify.sendall(state.encode())
        except OSError as error:
            logger.warning("could not notify systemd: %s", error)


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr, flush=True)  # noqa: T201  # a command's last word
    return code
