"""How a batch may end, where many rows of the table end alike."""

from dataclasses import replace

from fault_batches import NAMES
from fault_lane import BatchEnd, BatchFault

OPENAI, ANTHROPIC, GEMINI = NAMES
WELL = BatchEnd()
REFUSED = BatchEnd(0, 2, "invalid", create=3, poll=0, fetch=0, upload=3)
"""Refused as a whole, halved, and each half refused too."""
HALVED = BatchEnd(create=3, poll=2, fetch=2, upload=3)
"""Refused as a whole once; its halves went well."""
LOST = BatchEnd(create=2, poll=1, fetch=1, find=1)
"""Whether it was made is not known; by its name it was not, so it is made again."""
FOUND = BatchEnd(create=1, find=1)
ANSWERED_AGAIN = BatchEnd(create=2, poll=2, fetch=2, upload=2)
"""Who had no answer went into another batch."""
MALFORMED_ONE = replace(ANSWERED_AGAIN, maybe=1)
"""… and whether the provider charges for what nobody can read is not known."""
UNNAMED = {ANTHROPIC: BatchEnd(create=2, poll=1, fetch=1, find=1, maybe=2)}
"""A provider that keeps no name of ours: that there is none cannot be told, and its requests are asked for again, perhaps a second time."""


def row(name, group, does, end, act, **more):
    return BatchFault(name, group, does, end, act=act, **more)


def again(kind, **more):
    """It is tried again and again; the jobs wait."""
    counts = {"completed": 0, "create": 0, "poll": 0, "fetch": 0, **more}
    if kind in counts or kind == "find":
        counts[kind] = 1
    if kind == "upload":
        counts["upload"] = 1
    return BatchEnd(waits=kind, **counts)
