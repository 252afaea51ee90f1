"""Requests of several jobs that go out together, and the job that drives them.

A job whose request is to go with others joins the open batch of its group key, in the transaction that lets go of it: a row in
`llm_batch_requests`, and an edge to the job that drives the batch, under a step of its own (`@batch:ID`). What comes back is an answered
call of the waiting job's own step (`llm_calls`, origin batch or group), so that its next attempt finds it as it finds anything that is paid
for. The driving job is an ordinary durable job; what it does to the board are the orders in `batch_orders`.

Every function is called inside the caller's write transaction, except the readers, which may run anywhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from . import flows, host_store
from .engine import Connection
from .flows import Need
from .json_text import dumps, loads
from .model import JobOptions, Lease
from .new_job import NewJob, rows_of
from .sql import Prepared

_OPEN = Prepared("batches.OPEN")
_CREATE = Prepared("batches.CREATE")
_GROW = Prepared("batches.GROW")
_REQUEST = Prepared("batches.REQUEST")
_BODY = Prepared("batches.BODY")
_SUPERSEDE = Prepared("batches.SUPERSEDE")
_FORGET_HELD = Prepared("batches.FORGET_HELD")
_PARK = Prepared("batches.PARK")
_HASTEN = Prepared("batches.HASTEN")
_PRIORITY = Prepared("batches.PRIORITY")
_COMPANY = Prepared("batches.COMPANY")
_LIST = Prepared("batches.LIST")
_OF_JOB = Prepared("batches.OF_JOB")

Kind = Literal["batch", "group"]
DRIVERS: dict[Kind, str] = {"batch": "@batch", "group": "@group"}
"""The type of the job that drives a batch of each kind."""
QUEUE = "@batches"
"""The queue of all driving jobs: pausing it lets no batch leave, and none be looked after."""
STEP = "@batch:"
"""What the step of an edge to a driving job begins with; the id of the request follows."""
_OPTIONS = JobOptions(job_timeout=6 * 3600.0)
"""A driving job may upload and download large files in one attempt."""
_ATTEMPTS = 100
"""A driving job fails only by what is no fault of a request (a full disk, a bug): given up, its members ask anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """When a batch is full, and how old it may get before it leaves (milliseconds)."""

    requests: int
    bytes: int
    tokens: int
    age_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRequest:
    """A request that is to go with others. `model` is the alias or name it was asked for by; `request` its JSON form.

    `tag`: the name that the batch has at the provider if this request opens it. `deadline`: when its answer must be there (epoch ms).
    `hurry`: the batch is not to wait for more.
    """

    step: str
    kind: Kind
    provider: str
    group_key: str
    endpoint: str
    model: str
    fingerprint: str
    limit_key: str
    request: dict[str, Any]
    size: int
    tokens: int
    reserved_cost: int | None
    tag: str
    bounds: Bounds
    deadline: int | None = None
    hurry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """A batch as its driving job sees it. `results`: by what its results are fetched. `error`: what the driving job noted last."""

    id: int
    job_id: int
    kind: Kind
    provider: str
    group_key: str
    endpoint: str
    state: str
    requests: int
    bytes: int
    tokens: int
    tag: str
    sha256: str | None
    file_id: str | None
    batch_id: str | None
    results: list[str]
    offset: int
    polls: int
    created_at: int
    creating_at: int | None
    submitted_at: int | None
    error: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchInfo:
    """A batch as a reader sees it. `job_state` is its driving job's; `next_at` when that one looks again; `members` counts requests by state."""

    id: int
    job_id: int
    kind: Kind
    provider: str
    endpoint: str
    state: str
    job_state: str
    requests: int
    batch_id: str | None
    created_at: int
    submitted_at: int | None
    ended_at: int | None
    updated_at: int
    polls: int
    next_at: int | None
    reason: str | None
    error: dict[str, Any] | None
    members: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """One request of a job, and the batch it is in or was in."""

    step: str
    state: str
    batch: int
    job_id: int
    kind: Kind
    provider: str
    batch_state: str
    batch_id: str | None
    requests: int
    error: dict[str, Any] | None


def edge_step(request: int) -> str:
    """The step of the edge by which a job waits for a request of its own."""
    return f"{STEP}{request}"


def join(c: Connection, lease: Lease, requests: Sequence[NewRequest], now: int, actor: str) -> bool:
    """A running job waits for these requests, without its lease and with nothing counted. False if the lease is lost."""
    params = {
        "job_id": lease.job_id,
        "epoch": lease.epoch,
        "requests": len(requests),
        "reason": f"waits for a {requests[0].kind} with others (step {requests[0].step!r})",
        "now": now,
        "actor": actor,
    }
    if c.change(_PARK, params) != 1:
        return False
    for request in requests:
        c.change(_SUPERSEDE, {"job_id": lease.job_id, "step": request.step})
        c.change(_FORGET_HELD, {"job_id": lease.job_id, "step": request.step})
        put(c, lease.job_id, request, now, actor)
    return True


def put(c: Connection, job_id: int, new: NewRequest, now: int, actor: str) -> None:
    """Put a request of a job that waits into the open batch of its group key, and make that if there is none with room for it."""
    priority = c.run(_PRIORITY, {"job_id": job_id})[0][0]
    batch, driver, requests, size, tokens = _with_room(c, new, now, actor) or _opened(c, new, now, actor)
    add_request(c, batch, driver, job_id, new, now)
    full = (
        requests + 1 >= new.bounds.requests
        or size + new.size >= new.bounds.bytes
        or tokens + new.tokens >= new.bounds.tokens
    )
    due = now if full or new.hurry else now + new.bounds.age_ms
    c.change(_HASTEN, {"driver": driver, "priority": priority, "run_at": due})


def add_request(c: Connection, batch: int, driver: int, job_id: int, new: NewRequest, now: int) -> int:
    """Put a request into this batch, and let its job wait for it. Returns the request's id."""
    params = {
        "batch": batch,
        "job_id": job_id,
        "step": new.step,
        "model": new.model,
        "provider_model": new.request["model"],
        "inputs": len(new.request.get("inputs", ())),
        "fingerprint": new.fingerprint,
        "limit_key": new.limit_key,
        "bytes": new.size,
        "tokens": new.tokens,
        "reserved_cost": new.reserved_cost,
        "deadline": new.deadline,
        "now": now,
    }
    request = int(c.run(_REQUEST, params)[0][0])
    c.change(_BODY, {"request_id": request, "request": dumps(new.request)})
    c.change(_GROW, {"batch": batch, "requests": 1, "bytes": new.size, "tokens": new.tokens, "now": now})
    flows.add_edges(c, job_id, [Need(driver, None, "ignore")], edge_step(request))
    return request


def _with_room(c: Connection, new: NewRequest, now: int, actor: str) -> tuple[int, int, int, int, int] | None:
    """The open batch of its key: id, driving job, and what is in it. One without room for this request is let go."""
    del actor
    rows = c.run(_OPEN, {"group_key": new.group_key})
    if not rows:
        return None
    batch, driver, requests, size, tokens = rows[0]
    if (
        requests + 1 > new.bounds.requests
        or size + new.size > new.bounds.bytes
        or tokens + new.tokens > new.bounds.tokens
    ):
        c.change(_HASTEN, {"driver": driver, "priority": -1_000_000_000, "run_at": now})
        return None
    return batch, driver, requests, size, tokens


def _opened(c: Connection, new: NewRequest, now: int, actor: str) -> tuple[int, int, int, int, int]:
    batch, driver = open_batch(
        c, new.kind, new.provider, new.group_key, new.endpoint, new.model, new.tag, now + new.bounds.age_ms, now, actor
    )
    return batch, driver, 0, 0, 0


def open_batch(
    c: Connection,
    kind: Kind,
    provider: str,
    group_key: str,
    endpoint: str,
    model: str | None,
    tag: str,
    run_at: int,
    now: int,
    actor: str,
    *,
    state: str = "open",
) -> tuple[int, int]:
    """Make a batch and the job that drives it, due at `run_at`. Returns their ids. `model`: what says whether a worker can reach the provider."""
    job = NewJob(type=DRIVERS[kind], queue=QUEUE, model=model, run_at=run_at, max_attempts=_ATTEMPTS, options=_OPTIONS)
    row, body = rows_of(job, now)
    driver = host_store.add(c, {**row, "state": "delayed", "run_at": run_at, "changed_by": actor}, body)
    params = {
        "driver": driver,
        "kind": kind,
        "provider": provider,
        "group_key": group_key,
        "endpoint": endpoint,
        "state": state,
        "tag": tag,
        "now": now,
    }
    return int(c.run(_CREATE, params)[0][0]), driver


def has_company(c: Connection, job_type: str, group_key: str) -> bool:
    """Whether a request of a job of this type has anything to wait for: other such jobs that are there to be done, or a batch that is open."""
    return bool(c.run(_OPEN, {"group_key": group_key})) or c.run(_COMPANY, {"type": job_type})[0][0] > 1


# --- reading -----------------------------------------------------------------------------------------------------------------------------


def listed(c: Connection, *, every: bool, limit: int) -> list[BatchInfo]:
    """The newest batches first; only those under way unless `every`."""
    found = []
    for row in c.run(_LIST, {"every": every, "limit": limit}):
        *values, run_at, held_until, reason, error, members = row
        names = list(BatchInfo.__dataclass_fields__)[: len(values)]
        found.append(
            BatchInfo(
                **dict(zip(names, values, strict=True)),
                next_at=run_at if run_at is not None else held_until,
                reason=reason,
                error=None if error is None else loads(error),
                members=loads(members),
            )
        )
    return found


def requests_of(c: Connection, job_id: int) -> list[RequestInfo]:
    """The requests of a job that went with others, or wait to, oldest first."""
    return [
        RequestInfo(
            **{
                **dict(zip(RequestInfo.__dataclass_fields__, row, strict=True)),
                "error": None if row[-1] is None else loads(row[-1]),
            }
        )
        for row in c.run(_OF_JOB, {"job_id": job_id})
    ]


def waits_in(c: Connection, job_id: int) -> str:
    """The batches that a job's requests wait in, as the end of a sentence; empty if there are none."""
    found = {}
    for request in requests_of(c, job_id):
        if request.state in ("waiting", "sent"):
            name = f" ({request.batch_id})" if request.batch_id else ""
            found[request.batch] = (
                f"; {request.kind} {request.batch} at {request.provider}{name} is {request.batch_state},"
                f" {request.requests} requests, driven by job {request.job_id}"
            )
    return "".join(found.values())


def batch_of(row: Iterable[Any]) -> BatchRow:
    """A row of `llm_batches`."""
    values = dict(zip(BatchRow.__dataclass_fields__, row, strict=True))
    values["results"] = loads(values["results"]) if values["results"] else []
    values["error"] = loads(values["error"]) if values["error"] else None
    return BatchRow(**values)
