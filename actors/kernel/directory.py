"""Names, lives and who watches whom.

An actor is never held by reference: it is addressed by name, and the name is resolved at each send, so that a message reaches
whichever life holds the name now. The directory also numbers the lives (`generation`) and remembers how the last ones ended.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import KernelError, NameTakenError
from .inbox import ClosingInbox
from .messages import Down, ExitReason, NotRunning, without_exception
from .timers import WatchToken

if TYPE_CHECKING:
    from .actor import Actor

REMEMBERED = 1_000
"""Names without a living actor whose last end is remembered."""


@dataclass(slots=True, eq=False)
class Life:
    """One life of an actor, from its start to its `Down`. Shared between threads; its mutable parts belong to the directory's lock."""

    name: str
    generation: int
    actor: Actor
    inbox: ClosingInbox
    owner: Life | None = None
    children: dict[Life, None] = field(
        default_factory=dict
    )  # a dict, for its order: a simulation must not depend on hashes
    watchers: dict[Life, WatchToken] = field(default_factory=dict)
    begun: bool = False  # of an actor that shares its thread: whether it has had its first turn
    over: bool = False
    abandoned: bool = False
    ready: threading.Event = field(default_factory=threading.Event)
    finished: threading.Event = field(default_factory=threading.Event)  # the thread has left the actor
    thread: threading.Thread | None = None


class Directory:
    """Who holds which name. Any thread may call any method; `find` takes no lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._living: dict[str, Life] = {}
        self._last: OrderedDict[str, Down] = OrderedDict()
        self._floor = 0

    def find(self, name: str) -> Life | None:
        """Return the life that holds the name now, or None."""
        return self._living.get(name)

    def lives(self) -> list[Life]:
        """Return all lives, in the order of their start."""
        with self._lock:
            return list(self._living.values())

    def next_generation(self, name: str) -> int:
        """Return the number of the next life of a name: greater than that of every earlier one, 1 for a name never used."""
        with self._lock:
            living = self._living.get(name)
            if living is not None:
                return living.generation + 1
            last = self._last.get(name)
            # A name that was forgotten may have lived before, so new names start above whatever was forgotten.
            return (last.generation if last is not None else self._floor) + 1

    def add(self, life: Life) -> None:
        """Give a life its name. Raises NameTakenError when a living actor holds it, KernelError when the owner is gone."""
        with self._lock:
            holder = self._living.get(life.name)
            if holder is not None:
                raise NameTakenError(
                    f"cannot start an actor named {life.name!r}: generation {holder.generation} of that name is alive; "
                    "stop it first, or choose another name"
                )
            if life.owner is not None and life.owner.over:
                raise KernelError(f"cannot start {life.name!r}: its owner {life.owner.name!r} has just ended")
            self._living[life.name] = life
            if life.owner is not None:
                life.owner.children[life] = None

    def end(
        self, life: Life, reason: ExitReason, *, abandoned: bool
    ) -> tuple[list[Life], list[tuple[Life, WatchToken]]] | None:
        """End a life: free its name, and return its orphaned children and its watchers, or None if it was over already."""
        with self._lock:
            if life.over:
                return None
            life.over, life.abandoned = True, abandoned
            if self._living.get(life.name) is life:
                del self._living[life.name]
            self._last[life.name] = Down(life.name, life.generation, without_exception(reason))
            self._last.move_to_end(life.name)
            while len(self._last) > REMEMBERED:
                _, forgotten = self._last.popitem(last=False)
                self._floor = max(self._floor, forgotten.generation)
            if life.owner is not None:
                life.owner.children.pop(life, None)
            orphans, watchers = list(life.children), list(life.watchers.items())
            life.children.clear()
            life.watchers.clear()
            return orphans, watchers

    def watch(self, name: str, watcher: Life, token: WatchToken) -> Down | None:
        """Watch the life that holds the name; if there is none, return how its last one ended."""
        with self._lock:
            life = self._living.get(name)
            if life is None:
                return self._last.get(name) or Down(name, 0, NotRunning())
            life.watchers[watcher] = token
            return None

    def unwatch(self, name: str, watcher: Life) -> None:
        """Stop watching; nothing happens if the watch is over."""
        with self._lock:
            life = self._living.get(name)
            if life is not None:
                life.watchers.pop(watcher, None)
