"""The whole company on one page: who is there, in which order they start, and what happens when one ends.

    company (root, rest_for_one)
    ├─ store          the one writer of the database in this process
    ├─ limiters       one_for_one, dynamic: limiter:KEY, started when a key is first used
    ├─ providers      one_for_one: provider:NAME
    ├─ runners        one_for_one, dynamic: runner-N, as many as the dispatcher asks for
    └─ dispatcher     claims, and sizes the pool

The order of start is the order of dependency, so `rest_for_one` is right at the root: whoever loses the store starts afresh after it.
What a child was doing is never lost with it: jobs are leased rows, and a new life finds them.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..claim_desk import Board
from ..dispatcher import DispatcherActor
from ..kernel.actor import Actor
from ..kernel.system import ActorSystem
from ..memory import rss_mb
from ..messages import DISPATCHER, LIMITERS, PROVIDERS, ROOT, RUNNERS, STORE, limiter_name, provider_name
from ..providers.actor import Engine, ProviderActor
from ..rate_limiter.actor import RateLimiterActor
from ..runner.actor import JobRunnerActor
from ..runner.handlers import HandlerRegistry
from ..settings import CompanySettings, Route, used_providers
from ..shared_budgets import budgets_of
from ..store import StoreActor
from .messages import StartChild
from .spec import Backoff, ChildSpec, Intensity, Strategy
from .supervisor import SupervisorActor

QUICK = Backoff(base=0.05, cap=5.0)
"""For children that hold nothing which takes time to come back."""
HANG_AFTER = 30.0
"""Seconds on one message after which an actor that never waits is taken for hung. The store waits for the disk, so it has longer."""
STORE_HANG_AFTER = 120.0
STORE_OUTAGE = 24 * 3600.0
"""Seconds a limiter may take to be ready: it waits for the store, which may be waiting for its disk."""
NEVER_MIND = Intensity(max_restarts=100, within=60.0, max_consecutive=20)
"""Runners and limiters: one bad job must not end the company, and a crash costs that job a loss, which has a cap of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyParts:
    """What the company is built from. `make_engine` makes the engine of a provider by its name, for each of its lives.

    `limit_window`: the seconds that "per minute" means; shorter only where a test's provider agrees.
    """

    settings: CompanySettings
    board: Board
    handlers: HandlerRegistry
    make_engine: Callable[[str], Engine]
    memory: Callable[[], float | None] = rss_mb
    limit_window: float = 60.0


def start_company(system: ActorSystem, parts: CompanyParts) -> None:
    """Start the root; it is ready when everybody is. The system's `on_root_exit` is told when it gives up."""
    system.start_actor(ROOT, lambda: company(system, parts))


def company(system: ActorSystem, parts: CompanyParts) -> SupervisorActor:
    """The root supervisor, not yet started."""
    settings = parts.settings

    opened: set[tuple[str, int]] = set()

    def open_limiter(route: Route) -> None:
        """Any runner's thread. Once for each life of the group: it keeps what it was told to start."""
        group_life = system.directory.find(LIMITERS)
        if group_life is not None and (wanted := (route.limit_key, group_life.generation)) not in opened:
            opened.add(wanted)
            system.tell_life(group_life, StartChild(limiter_spec(system, parts, route)))

    def runner() -> Actor:
        return JobRunnerActor(system, settings=settings, handlers=parts.handlers, open_limiter=open_limiter)

    def runner_spec(name: str) -> ChildSpec:
        return ChildSpec(id=name, start=runner, backoff=QUICK, hang_after=HANG_AFTER)

    at_once = used_providers(settings)

    def provider(name: str) -> ChildSpec:
        return ChildSpec(
            id=provider_name(name),
            start=lambda: ProviderActor(
                system, provider=name, make_engine=lambda: parts.make_engine(name), at_once=name in at_once
            ),
            backoff=QUICK,
            hang_after=HANG_AFTER,
        )

    def store() -> Actor:
        return StoreActor(
            system,
            board=parts.board,
            lease_ttl=settings.lease_ttl,
            ageing=settings.ageing,
            retention_days=settings.retention_days,
            budgets=budgets_of(settings),
            cache=settings.cache,
        )

    def dispatcher() -> Actor:
        return DispatcherActor(
            system, settings=settings, types=parts.handlers.types, runner_spec=runner_spec, memory=parts.memory
        )

    def group(name: str, *children: ChildSpec, notify: str | None = None) -> ChildSpec:
        return ChildSpec(
            id=name,
            start=lambda: SupervisorActor(
                system, children, intensity=NEVER_MIND, notify=notify, max_abandoned=settings.max_abandoned
            ),
            start_timeout=60.0,
            stop_timeout=20.0,
        )

    return SupervisorActor(
        system,
        [
            ChildSpec(id=STORE, start=store, start_timeout=60.0, stop_timeout=30.0, hang_after=STORE_HANG_AFTER),
            group(LIMITERS),
            group(PROVIDERS, *(provider(name) for name in settings.providers)),
            group(RUNNERS, notify=DISPATCHER),
            ChildSpec(id=DISPATCHER, start=dispatcher, backoff=QUICK, hang_after=HANG_AFTER),
        ],
        strategy=Strategy.REST_FOR_ONE,
        max_abandoned=settings.max_abandoned,
    )


def limiter_spec(system: ActorSystem, parts: CompanyParts, route: Route) -> ChildSpec:
    """The child spec of the limiter of a route's key."""
    provider = parts.settings.providers[route.provider]
    sources = provider.key_places()
    remedy = f"See to the account of provider {route.provider}"
    if sources:
        remedy += f" and its key, which comes from {' or '.join(sources)}"
    return ChildSpec(
        id=limiter_name(route.limit_key),
        start=lambda: RateLimiterActor(
            system,
            limit_key=route.limit_key,
            limits=route.limits,
            account=route.provider,
            remedy=remedy,
            park_after=parts.settings.park_after,
            window=parts.limit_window,
        ),
        start_timeout=STORE_OUTAGE,
        backoff=QUICK,
        hang_after=HANG_AFTER,
    )
