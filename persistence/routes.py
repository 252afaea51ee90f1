"""Where the models that jobs name lead, as the workers are configured: by which limit keys their calls are admitted.

A host knows models by name alone. The worker that starts writes what it makes of each name, so that a host can say of a job that waits whether
what it waits for is a key on hold. Of two workers that are configured differently, what the one says that started last is known.
"""

from collections.abc import Mapping
from typing import NamedTuple

from .batches import DRIVERS
from .engine import Connection
from .json_text import dumps, loads
from .limits import holds
from .model import JobRow, LimitHold
from .sql import Prepared

_PUBLISH = Prepared("routes.PUBLISH")
_OF = Prepared("routes.OF")

DEFAULT = ""
"""Stands for the model of a chat that names none."""


class ModelRoute(NamedTuple):
    """The limit keys by which the calls of a model are admitted: its own, then those of its chain.

    `goes_on`: the kinds of holds (`LimitHold.kind`) after which a job goes on along the chain rather than wait.
    """

    keys: tuple[str, ...]
    goes_on: frozenset[str] = frozenset()


def publish(c: Connection, routes: Mapping[str, ModelRoute], now: int) -> None:
    """Let hosts know what these names mean to a worker. `PROVIDER:` is any model of a provider that is no alias: with keys, all have that one.

    Inside the caller's write transaction.
    """
    for model, route in routes.items():
        told = {"keys": dumps(route.keys), "goes_on": dumps(sorted(route.goes_on))}
        c.change(_PUBLISH, {"model": model, **told, "now": now})


def held(c: Connection, job: JobRow, now: int) -> list[LimitHold]:
    """The holds that keep a waiting job from being claimed: of its model's key and, along its chain, of every key that it would go on to.

    Empty where one of them is free, and where nobody knows which keys they are. The same choice as the dispatcher's (`actors.plan`).
    """
    standing = {hold.key: hold for hold in holds(c) if hold.until > now}
    if not standing or (job.model is None and job.type != "chat") or job.type == DRIVERS["batch"]:
        return []
    keys, goes_on = _route(c, job.model or DEFAULT)
    found: list[LimitHold] = []
    for key in keys:
        both = [standing[name] for name in {key, key.partition("/")[0]} if name in standing]
        if not both:
            return []
        found.append(max(both, key=lambda hold: hold.until))
        if found[-1].kind not in goes_on:
            break
    return found


def _route(c: Connection, model: str) -> ModelRoute:
    if rows := c.run(_OF, {"model": model}):
        return ModelRoute(tuple(loads(rows[0][0])), frozenset(loads(rows[0][1])))
    provider, colon, name = model.partition(":")
    if not colon:
        return ModelRoute(())
    rows = c.run(_OF, {"model": f"{provider}:"})
    shared = tuple(loads(rows[0][0])) if rows else ()
    return ModelRoute(shared or (f"{provider}/{name}",))
