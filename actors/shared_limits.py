"""The store's part in limits: it is the gate that all workers of a database pass, and it tells the limiters what others did.

Called by the store's actor, inside its transactions where it writes. Replies are (name, message), to be sent after the commit.
"""

from collections.abc import Iterable

from ..persistence import limits
from ..persistence.engine import Connection
from ..persistence.limit_rules import Charge, Gate, Held
from ..persistence.model import LimitHold
from .messages import (
    CallRef,
    IntentRefused,
    LimitsChanged,
    LoadUsage,
    LowerLimits,
    SaveDescription,
    SaveHold,
    UsageLoaded,
    limiter_name,
)

Replies = list[tuple[str, object]]
SETTLED_WITHIN_MS = 250
"""An outcome is settled as of when the call ended, if it comes to the database within this time."""
PAUSE_MS = 50
"""After a refusal nothing of the key is granted for so long: whatever a limiter believes, it does not spin."""
PICTURE_EVERY_MS = 20
"""A burst of refusals is told of once."""


class SharedLimits:
    """What one store remembers of the limits: what its limiters were told."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._holds: dict[str, LimitHold] = {}
        self._factors: dict[str, tuple[float, int]] = {}
        self._pictured: dict[str, int] = {}
        self._free: set[tuple[str, str]] = set()

    def new_transaction(self) -> None:
        """What the last one knew may have changed."""
        self._free.clear()

    def check(self, c: Connection, call: CallRef, reply_to: str, gate: Gate | None, now: int) -> Replies:
        """The refusal of a call, with a picture for its limiter; nothing if it may go."""
        if gate is None:
            return []
        refusal = self._held(c, gate, now) or limits.check(c, gate, now)
        if refusal is None:
            return []
        replies: Replies = []
        if now - self._pictured.get(gate.key, 0) >= PICTURE_EVERY_MS:
            self._pictured[gate.key] = now
            picture = limits.picture(c, self._owner, gate.key, gate.account, gate.days, now)
            told = UsageLoaded(limit_key=gate.key, picture=picture, not_before_ms=now + PAUSE_MS)
            replies.append((limiter_name(gate.key), told))
        refused = IntentRefused(
            call=call, cause="limit", key=gate.key, reason=refusal.reason, until_ms=refusal.until_ms
        )
        return [*replies, (reply_to, refused)]

    def _held(self, c: Connection, gate: Gate, now: int) -> limits.Refusal | None:
        """The hold of a key, looked for once a transaction: within it only this store writes."""
        key = (gate.key, gate.account)
        if key in self._free:
            return None
        refusal = limits.held(c, *key, now)
        if refusal is None:
            self._free.add(key)
        return refusal

    def charge(self, c: Connection, gate: Gate | None, now: int) -> Held | None:
        """Charge a call whose intent is in the ledger."""
        return None if gate is None else limits.charge(c, self._owner, gate, now)

    def settle(self, c: Connection, held: Held | None, used: Charge | None, ended_ms: int, now: int) -> None:
        """Settle a call whose outcome is in the ledger."""
        if held is not None:
            limits.settle(c, self._owner, held, used, min(now, max(ended_ms, now - SETTLED_WITHIN_MS)))

    def load(self, c: Connection, order: LoadUsage, now: int) -> Replies:
        """How a key stands."""
        limits.use_key(c, order.limit_key, now)
        picture = limits.picture(c, self._owner, order.limit_key, order.account, order.days, now)
        return [(order.reply_to, UsageLoaded(limit_key=order.limit_key, picture=picture))]

    def save_hold(self, c: Connection, order: SaveHold, now: int) -> Replies:
        """Keep a hold, or clear it."""
        if order.until_ms is None:
            limits.clear_hold(c, order.key)
            self._holds.pop(order.key, None)
        else:
            self._free.clear()
            # Known from now on, so that it is noticed however soon a person lifts it.
            self._holds[order.key] = limits.set_hold(c, order.key, order.until_ms, order.reason, now, order.kind)
        return []

    def lower(self, c: Connection, order: LowerLimits, now: int) -> Replies:
        """Lower a key's limits after a refusal."""
        factor, since = limits.lower(c, order.limit_key, now)
        changed = LimitsChanged(limit_key=order.limit_key, holds=(), lifted=(), factor=factor, factor_at_ms=since)
        return [(order.reply_to, changed)]

    def describe(self, c: Connection, order: SaveDescription, now: int) -> Replies:
        """Keep a limiter's description."""
        limits.describe(c, self._owner, order.limit_key, order.description, now)
        return []

    def news(self, c: Connection, keys: Iterable[str], now: int) -> Replies:
        """What changed of holds and lowerings since the last look, for the limiters of `keys`; also what they changed themselves."""
        holds = {hold.key: hold for hold in limits.holds(c)}
        factors = limits.factors(c)
        if holds == self._holds and factors == self._factors:
            return []
        before, self._holds = self._holds, holds
        lowered, self._factors = self._factors, factors
        for name in before.keys() - holds.keys():
            limits.free_jobs(c, name, now)  # a worker that did not know yet may have sent some back to wait for it
        replies: Replies = []
        for key in keys:
            concerned = [name for name in before.keys() | holds.keys() if name == key or key.startswith(f"{name}/")]
            new = tuple(holds[name] for name in concerned if name in holds and holds[name] != before.get(name))
            lifted = tuple(before[name].until for name in concerned if name in before and name not in holds)
            factor, since = factors.get(key, (1.0, 0))
            if new or lifted or (factor, since) != lowered.get(key, (1.0, 0)):
                changed = LimitsChanged(
                    limit_key=key,
                    holds=tuple(hold for hold in new if hold.until > now),
                    lifted=lifted,
                    factor=factor,
                    factor_at_ms=since,
                )
                replies.append((limiter_name(key), changed))
        return replies
