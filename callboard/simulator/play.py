"""The playing of a reply: its bytes at their times, and an ending that may be no ending."""

from __future__ import annotations

import time
from collections.abc import Callable

from .http import HttpConnection
from .replies import Reply, Step

_MERGED_BYTES = 64 * 1024
"""Steps that are due together are sent in writes of about this size."""


async def play(connection: HttpConnection, reply: Reply, produced: Callable[[int], None]) -> None:
    """Send a reply as planned, and come back when it has ended; a held one ends with its client. Raises ClientGoneError."""
    if reply.wait > 0:
        await connection.pause(reply.wait)
    if reply.has_headers:
        length = [] if reply.length is None else [("content-length", str(reply.length))]
        connection.start(reply.status, reply.headers + length)
        await _play_steps(connection, reply.steps, produced)
    if reply.ending == "clean":
        await connection.finish()
        return
    await connection.flush()
    if reply.ending == "cut":
        return  # a connection whose reply is not finished is closed by its owner, after what was written
    while True:
        await connection.pause(reply.interval if reply.ping and reply.has_headers else None)
        connection.write(reply.ping)
        await connection.flush()


async def _play_steps(connection: HttpConnection, steps: list[Step], produced: Callable[[int], None]) -> None:
    """Send steps at their times. The times are sums from the start, so that the pace does not drift with the sending."""
    due = time.monotonic()
    merged: list[bytes] = []
    size = 0
    for step in steps:
        if step.delay > 0:
            due += step.delay
            missing = due - time.monotonic()
            if missing > 0:
                if merged:
                    connection.write(b"".join(merged))
                    merged, size = [], 0
                await connection.flush()
                await connection.pause(missing)
        merged.append(step.data)
        size += len(step.data)
        produced(step.tokens)
        if size >= _MERGED_BYTES:
            connection.write(b"".join(merged))
            merged, size = [], 0
            await connection.flush()
    if merged:
        connection.write(b"".join(merged))
