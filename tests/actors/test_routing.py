"""What hosts are told of models is what the dispatcher goes by: a job is said to be held exactly when its lane is not claimed from for a hold."""

from dataclasses import replace
from itertools import product

import pytest

from callboard import JobQueue
from callboard.actors.plan import Allowance, plan_claim
from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.routing import HOLDS, model_routes
from callboard.actors.settings import CompanySettings, LimitSettings, ModelSettings
from callboard.persistence import limits, routes
from callboard.persistence.batches import DRIVERS
from callboard.persistence.model import LaneDepth
from callboard.persistence.routes import ModelRoute

NOW = 1_700_000_000_000
TYPES = frozenset({"chat", "report", *DRIVERS.values()})


def provider(name):
    return ProviderSettings(name=name, wire="openai-chat", base_url="https://provider.example/v1")


SETTINGS = CompanySettings(
    database="sqlite://",
    providers={"acme": provider("acme"), "beta": provider("beta")},
    models={
        "first": ModelSettings(
            provider="acme",
            model="m-1",
            family="m",
            fallback=("second", "acme:m-3"),
            fallback_on=("quota", "overloaded"),
        ),
        "second": ModelSettings(provider="beta", model="m-2", fallback_on=("rate",)),
        "lost": ModelSettings(provider="acme", model="m-4", fallback=("nowhere",)),
    },
    limits={"beta": LimitSettings(concurrency=3)},
    default_model="first",
)
KEYS = ("acme/m", "acme/m-3", "beta")


def test_every_name_that_jobs_may_use_is_told():
    chain = ModelRoute(("acme/m", "beta", "acme/m-3"), frozenset({"quota", "breaker"}))
    assert model_routes(SETTINGS) == {
        "first": chain,
        "": chain,
        "second": ModelRoute(("beta",), frozenset({"rate"})),
        "acme:": ModelRoute(()),
        "beta:": ModelRoute(("beta",)),
    }, "and what leads nowhere is not: its jobs are told so"


@pytest.mark.parametrize("model", ["first", "second", None, "acme:m-3", "beta:m-9"])
@pytest.mark.parametrize("kind", ["chat", "report", *DRIVERS.values()])
def test_a_job_is_said_to_be_held_when_the_dispatcher_leaves_its_lane_alone(tmp_path, model, kind):
    lane = LaneDepth("lane", "default", kind, model, 1)
    with JobQueue(f"sqlite:///{tmp_path / 'board.db'}", synchronous="NORMAL", clock=lambda: NOW) as queue:
        job = replace(queue.row(queue.add("chat").id), type=kind, model=model)
        with queue._writer() as c:
            routes.publish(c, model_routes(SETTINGS), NOW)
        for held in product((None, *HOLDS), repeat=len(KEYS)):
            kinds = {key: hold for key, hold in zip(KEYS, held, strict=True) if hold is not None}
            allowances = {key: Allowance(0, NOW + 1000, hold) for key, hold in kinds.items()}
            plan = plan_claim([lane], slots=1, settings=SETTINGS, types=TYPES, allowances=allowances, now_ms=NOW)
            with queue._writer() as c:
                for key in KEYS:
                    limits.clear_hold(c, key)
                for key, hold in kinds.items():
                    limits.set_hold(c, key, NOW + 1000, "why", NOW, hold)
                assert bool(routes.held(c, job, NOW)) == (not plan.quotas), kinds
