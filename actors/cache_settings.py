"""How long answers may be given again, and how many are kept: `[cache]` of the configuration."""

from typing import Annotated

import msgspec

Count = Annotated[int, msgspec.Meta(ge=1)]


class CacheSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Answers that are given again. `max_age` (seconds): for all jobs that say nothing of it themselves; None: only those that ask for it.

    What is above `max_entries` or `max_bytes` goes, the least recently used first.
    """

    max_age: Annotated[float, msgspec.Meta(gt=0)] | None = None
    max_entries: Count = 10_000
    max_bytes: Count = 256 * 1024 * 1024
