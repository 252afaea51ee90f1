"""Budgets: what a call may cost is reserved before it leaves, in the transaction that records its intent, and settled with its outcome.

A call fits a budget if what is spent, what calls in flight have reserved, and its own reservation are together no more than the budget. SQLite
lets one writer at a time look and write, so that workers racing for the last cent cannot both have it. A call that failed unbilled gives its
reservation back; one whose outcome is unknown keeps it, because it may have been paid for; one that does not say what it cost counts as what
was reserved for it. Sums are kept by triggers (`triggers.budget_triggers`), and never by hand.

Money in nano-dollars, times in epoch milliseconds. Every function is called inside the caller's write transaction, except the readers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, NamedTuple

from .engine import Connection
from .errors import InvalidJobError
from .json_text import dumps, loads
from .sql import Prepared

_JOB = Prepared("budgets.JOB")
_ON_BOARD = Prepared("budgets.ON_BOARD")
_OF_JOBS = Prepared("budgets.OF_JOBS")
_STANDING = Prepared("budgets.STANDING")
_IN_FLIGHT = Prepared("budgets.IN_FLIGHT")
_DESCRIBE = Prepared("budgets.DESCRIBE")
_RESERVE = Prepared("budgets.RESERVE")
_SETTLE = Prepared("budgets.SETTLE")
_SETTLED = Prepared("budgets.SETTLED")
_PUT = Prepared("budgets.PUT")
_DROP = Prepared("budgets.DROP")
_BEGIN_AT = Prepared("budgets.BEGIN_AT")
_FREE = Prepared("budgets.FREE")
_USAGE = Prepared("budgets.USAGE")
_FORGET = Prepared("budgets.FORGET")
_JOB_BUDGET = Prepared("budgets.JOB_BUDGET")

SCOPES = ("all", "tag", "tree", "job", "model", "provider")
PERIODS = ("none", "day", "month")
ACTIONS = ("stop", "pause", "downgrade")
NANO = 1_000_000_000
_MOST = 1e9
"""Dollars."""
LOOK_AGAIN_MS = 250
"""How long a call waits that would fit once calls in flight have given back what they did not use."""
HELD_FOR_MS = 86_400_000
"""How long a job waits at most for a budget without a period; raising it frees the job at once."""
HELD_BY = "budget "
"""What `llm_jobs.held_by` begins with for a job that waits for a budget."""
_SEVERITY = {"stop": 0, "downgrade": 1, "pause": 2, "wait": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """So much for all calls of a scope: `cost` in nano-dollars, `tokens` as the sum of all; None: not limited in that.

    `scope`: all, tag, tree (a job with all that it and they create), job, model or provider. `value`: the one it is about; None: each has a
    budget of its own. A model is `provider:model`. `period`: "day" and "month" begin anew in `timezone`; "none" never does. `action`, when a
    call does not fit: "stop" (the job fails), "pause" (it waits for the next period, or until the budget is raised), "downgrade" (it goes on
    with the model `downgrade_to`). `assume`: nano-dollars a call counts as whose price is unknown; None: such a call is refused.
    """

    name: str
    scope: str = "all"
    value: str | None = None
    cost: int | None = None
    tokens: int | None = None
    period: str = "none"
    timezone: str = "UTC"
    action: str = "stop"
    downgrade_to: str | None = None
    assume: int | None = None

    def __post_init__(self) -> None:
        """Raise ValueError, whose sentence begins with the field's name."""
        for field, allowed in (("scope", SCOPES), ("period", PERIODS), ("action", ACTIONS)):
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, not {getattr(self, field)!r}")
        if self.cost is None and self.tokens is None:
            raise ValueError("dollars or tokens must be given: a budget limits one of them or both")
        if (self.action == "downgrade") != (self.downgrade_to is not None):
            raise ValueError('downgrade_to goes with action "downgrade", and it needs one')
        zone(self.timezone)

    def matches(self, job: "JobFacts", provider: str, model: str) -> str | None:
        """The key under which a call counts in this budget, None if it is not about it."""
        found = {
            "all": "",
            "tag": job.tag,
            "tree": str(job.root),
            "job": str(job.id),
            "model": f"{provider}:{model}",
            "provider": provider,
        }[self.scope]
        if found is None or (self.value is not None and found != self.value):
            return None
        return self.name if self.value is not None or self.scope == "all" else f"{self.name}:{found}"


class JobFacts(NamedTuple):
    """What budgets go by: the job, its tag, and the first of those who created it."""

    id: int
    tag: str | None
    root: int


class Known(NamedTuple):
    """What the database knows of budgets, as of a transaction: those that hosts put on the board, and whether any job has one of its own."""

    board: tuple[Budget, ...]
    of_jobs: bool


class Period(NamedTuple):
    """A stretch of time that a budget counts by: its name ('' for all time), and when it ends."""

    name: str
    until: int | None


class Claim(NamedTuple):
    """A budget that a call counts in, and what it would reserve of it; `amount` None: its price is unknown, and that is refused."""

    budget: Budget
    key: str
    period: Period
    amount: int | None
    tokens: int


class Refusal(NamedTuple):
    """A call does not fit. `action`: stop, pause, downgrade (with `model`), or wait, for calls in flight to give back what they do not use.

    `until`: when to look again, None: only when the budget is raised.
    """

    key: str
    action: str
    reason: str
    until: int | None
    model: str = ""


class Standing(NamedTuple):
    """How a budget stands in a period. `cap` and `token_cap` are what it was when it was last asked; None: not limited in that."""

    budget: str
    period: str
    cap: int | None
    token_cap: int | None
    spent: int
    reserved: int
    tokens_spent: int
    tokens_reserved: int
    until: int | None
    updated_at: int

    @property
    def left(self) -> int | None:
        """Nano-dollars that no call has spent or reserved; below 0 where calls cost more than was reserved for them."""
        return None if self.cap is None else self.cap - self.spent - self.reserved


def zone(name: str) -> tzinfo:
    """The time zone of this IANA name. Raises ValueError."""
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f'timezone {name!r} is not known here; write it as in "Europe/Berlin"') from error


def period_at(budget: Budget, now: int) -> Period:
    """The period of this budget that `now` is in, by the calendar of its time zone."""
    if budget.period == "none":
        return Period("", None)
    local = datetime.fromtimestamp(now / 1000, zone(budget.timezone))
    start = local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if budget.period == "day":
        following = start + timedelta(days=1)  # wall time: midnight to midnight, also where a day has 23 hours
        name = start.strftime("%Y-%m-%d")
    else:
        start = start.replace(day=1)
        following = (start + timedelta(days=32)).replace(day=1)
        name = start.strftime("%Y-%m")
    return Period(name, round(following.timestamp() * 1000))


# --- a call asks -------------------------------------------------------------------------------------------------------------------------


def known(c: Connection) -> Known:
    """What `claims` goes by beside the configuration. Reads only; it lasts for a transaction that changes no budget."""
    return Known(tuple(on_board(c)), bool(c.run(_OF_JOBS)[0][0]))


def claims(
    c: Connection,
    budgets: Sequence[Budget],
    known: Known,
    *,
    job_id: int,
    provider: str,
    model: str,
    amount: int | None,
    tokens: int,
    now: int,
) -> list[Claim]:
    """The budgets that a call counts in: of these, of the board's, and of the job's own and those above it. Reads only."""
    if not budgets and not known.board and not known.of_jobs:
        return []
    rows = c.run(_JOB, {"job_id": job_id})
    if not rows:
        return []
    facts = JobFacts(*rows[0][:3])
    found: list[Claim] = []
    for budget in (*budgets, *known.board):
        key = budget.matches(facts, provider, model)
        if key is not None:
            found.append(_claim(budget, key, amount, tokens, now))
    for owner, _, _, dollars in rows:
        if dollars is not None:
            # By plain SQL it may be beyond what a column holds.
            own = Budget(name=f"job:{owner}", scope="tree", cost=round(max(-_MOST, min(dollars, _MOST)) * NANO))
            found.append(_claim(own, own.name, amount, tokens, now))
    return found


def _claim(budget: Budget, key: str, amount: int | None, tokens: int, now: int) -> Claim:
    if amount is None:
        amount = budget.assume if budget.cost is not None else 0
    return Claim(budget, key, period_at(budget, now), amount, tokens)


def check(c: Connection, asked: Sequence[Claim], *, provider: str, model: str, now: int) -> Refusal | None:
    """None if the call fits all of them; else the refusal that weighs most. Reads only."""
    refusals = [refusal for claim in asked if (refusal := _refusal(c, claim, f"{provider}:{model}", now)) is not None]
    return min(refusals, key=lambda refusal: _SEVERITY[refusal.action], default=None)


def _refusal(c: Connection, claim: Claim, model: str, now: int) -> Refusal | None:
    budget, key, period, amount, tokens = claim
    if amount is None:
        reason = f"the price of {model} is not known, and the budget {key!r} is in dollars: give the model a price, or the budget an `assume`"
        if budget.downgrade_to is not None:
            return Refusal(key, "downgrade", reason, None, budget.downgrade_to)
        return Refusal(key, "stop", reason, None)
    rows = c.run(_STANDING, {"key": key, "in_period": period.name})
    spent, reserved, tokens_spent, tokens_reserved = rows[0] if rows else (0, 0, 0, 0)
    over_cost = budget.cost is not None and spent + reserved + amount > budget.cost
    over_tokens = budget.tokens is not None and tokens_spent + tokens_reserved + tokens > budget.tokens
    if not over_cost and not over_tokens:
        return None
    reason = _told(claim, spent, reserved, tokens_spent, tokens_reserved, by_cost=over_cost)
    flying, tokens_flying = c.run(_IN_FLIGHT, {"key": key, "in_period": period.name})[0]
    fits_later = not (
        over_cost and budget.cost is not None and spent + reserved - flying + amount > budget.cost
    ) and not (
        over_tokens
        and budget.tokens is not None
        and tokens_spent + tokens_reserved - tokens_flying + tokens > budget.tokens
    )
    if fits_later:
        return Refusal(key, "wait", reason, now + LOOK_AGAIN_MS)
    if budget.downgrade_to is not None:
        return Refusal(key, "downgrade", reason, None, budget.downgrade_to)
    if budget.action == "pause" and not (period.until is not None and _never_fits(claim)):
        return Refusal(key, "pause", reason, now + HELD_FOR_MS if period.until is None else period.until)
    return Refusal(key, "stop", reason, None)


def _never_fits(claim: Claim) -> bool:
    budget = claim.budget
    return (budget.cost is not None and (claim.amount or 0) > budget.cost) or (
        budget.tokens is not None and claim.tokens > budget.tokens
    )


def _told(claim: Claim, spent: int, reserved: int, tokens_spent: int, tokens_reserved: int, *, by_cost: bool) -> str:
    budget, key, period, amount, tokens = claim
    when = f" of {period.name}" if period.name else ""
    if by_cost and budget.cost is not None and amount is not None:
        parts = tuple(dollars_text(value) for value in (budget.cost, spent, reserved, amount))
    else:
        parts = (f"{budget.tokens} tokens", f"{tokens_spent}", f"{tokens_reserved}", f"{tokens}")
    return (
        f"budget {key!r}{when} is {parts[0]}: {parts[1]} spent, {parts[2]} reserved, and this call may take {parts[3]}"
    )


def dollars_text(nano: int) -> str:
    """Nano-dollars as dollars, every digit that says something."""
    text = f"{nano / NANO:.9f}".rstrip("0")
    return f"${text}{'0' * max(0, 2 - len(text.partition('.')[2]))}"


def reserve(c: Connection, asked: Iterable[Claim], call_id: int, now: int) -> None:
    """Take what a call may cost off what is left, until it is settled. Reserving again for the same call changes nothing."""
    for claim in asked:
        where = {"key": claim.key, "in_period": claim.period.name}
        budget = claim.budget
        c.change(
            _DESCRIBE,
            {**where, "cap": budget.cost, "token_cap": budget.tokens, "until": claim.period.until, "now": now},
        )
        c.change(_RESERVE, {**where, "call_id": call_id, "amount": claim.amount or 0, "tokens": claim.tokens})


def settle(c: Connection, call_id: int) -> None:
    """Put what the call really cost, by the ledger, in place of its reservation. One that is open or unknown keeps it. Twice is once."""
    if c.change(_SETTLE, {"call_id": call_id}):
        c.change(_SETTLED, {"call_id": call_id})


# --- budgets of the board ----------------------------------------------------------------------------------------------------------------


def on_board(c: Connection) -> list[Budget]:
    """The budgets that hosts have put on the board."""
    return [read(stored) for _, stored in c.run(_ON_BOARD)]


def read(stored: str) -> Budget:
    """A budget as it is stored; keys of a later release are passed over."""
    known: dict[str, Any] = {
        name: value for name, value in loads(stored).items() if name in Budget.__dataclass_fields__
    }
    return Budget(**known)


def put(c: Connection, budget: Budget, now: int, *, spent: int = 0, tokens: int = 0) -> None:
    """Put a budget on the board, or in place of the one of its name; jobs that wait for it look again.

    `spent` and `tokens`: at least so much counts as spent of it (a budget without a period).
    """
    if not budget.name or len(budget.name) > 100 or budget.name.startswith("job:"):
        raise InvalidJobError("name", 'must be 1 to 100 characters, and not begin with "job:"')
    c.change(_PUT, {"budget_name": budget.name, "stored": dumps(asdict(budget)), "now": now})
    if spent or tokens:
        c.change(_BEGIN_AT, {"key": budget.name, "spent": spent, "tokens": tokens, "now": now})
    free(c, budget.name, now)


def drop(c: Connection, name: str, now: int) -> bool:
    """Take a budget off the board; what it has counted stays. False if it was not there."""
    free(c, name, now)
    return c.change(_DROP, {"budget_name": name}) == 1


def free(c: Connection, name: str, now: int) -> int:
    """Let the jobs that wait for this budget ('*': any) look again. Returns how many."""
    escaped = name if name == "*" else "".join(f"[{char}]" if char in "*?[" else char for char in name)
    freed = c.change(_FREE, {"held": f"{HELD_BY}{escaped}", "now": now})
    if name != "*":  # those of one tag, tree or model
        freed += c.change(_FREE, {"held": f"{HELD_BY}{escaped}:*", "now": now})
    return freed


def set_job_budget(c: Connection, job_id: int, dollars: float | None, now: int) -> bool:
    """What a job and all that it creates may cost from now on. False if there is no such job."""
    free(c, f"job:{job_id}", now)
    return c.change(_JOB_BUDGET, {"wanted": job_id, "dollars": dollars}) == 1


def standings(c: Connection, now: int, limit: int = 1000) -> list[Standing]:
    """The budgets that were asked last, `limit` at most, by name, the newest period first; then those of the board that no call has asked."""
    asked = [Standing(*row) for row in c.run(_USAGE, {"limit": limit})]
    # A budget that each tag, model, … has of its own is asked as NAME:TAG, and a tag may have colons too.
    names = {
        ":".join(parts[:n]) for one in asked for parts in [one.budget.split(":")] for n in range(1, len(parts) + 1)
    }
    unasked = [(budget, period_at(budget, now)) for budget in on_board(c) if budget.name not in names]
    return asked + [Standing(b.name, p.name, b.cost, b.tokens, 0, 0, 0, 0, p.until, now) for b, p in unasked]


def forget(c: Connection, before: int) -> int:
    """Let go of what was counted in periods that ended before then. Returns how many."""
    return c.change(_FORGET, {"before": before})
