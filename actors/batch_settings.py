"""How requests that go out together are gathered and looked after: `[batch]` and `[embeddings]` of the configuration. Durations are seconds."""

from typing import Annotated

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class BatchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The batches of jobs with `latency = "batch"`. A batch leaves when it is full, or `max_age` old.

    It is full at `max_requests`, `max_bytes` or `max_tokens` (of input, estimated), and never above what its provider takes. It is asked after
    `poll` seconds, then 1.5 times that, up to `poll_cap`. `deadline_margin`: a request whose answer must be there sooner is asked for by itself.
    `find_after`: how long after a batch was asked for its provider's list is taken for complete. `max_rounds`: batches that a request may be in
    without an answer before it is asked for by itself.
    """

    max_requests: Count = 50_000
    max_bytes: Count = 100_000_000
    max_tokens: Count = 20_000_000
    max_age: Positive = 60.0
    poll: Positive = 30.0
    poll_cap: Positive = 600.0
    deadline_margin: Positive = 300.0
    find_after: Positive = 120.0
    max_rounds: Count = 3


class EmbeddingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the texts of several `embed` jobs go in one request (`group`), and when that is full; `max_age` is how long one may wait for others.

    A job that is the only one there waits for nobody.
    """

    group: bool = True
    max_inputs: Count = 2048
    max_bytes: Count = 4_000_000
    max_tokens: Count = 270_000
    max_age: Positive = 0.05
