"""What this worker makes of the models that jobs name, for hosts to know: `persistence.routes` keeps it. Pure."""

from ..persistence.routes import DEFAULT, ModelRoute
from .settings import CompanySettings, UnknownModelError, covers, route

HOLDS = ("rate", "quota", "auth", "breaker")
"""The kinds of holds (`LimitHold.kind`)."""


def model_routes(settings: CompanySettings) -> dict[str, ModelRoute]:
    """Each alias, the default model, and each provider (`NAME:`) for its models that are no alias."""
    found: dict[str, ModelRoute] = {}
    for name in [*settings.models, None]:
        try:
            where = route(settings, name)
            chain = [where, *(route(settings, other) for other in where.fallback)]
        except UnknownModelError:
            continue  # jobs that name it are told so
        goes_on = frozenset(kind for kind in HOLDS if covers(where.fallback_on, kind))
        found[DEFAULT if name is None else name] = ModelRoute(tuple(one.limit_key for one in chain), goes_on)
    for name in settings.providers:
        found[f"{name}:"] = ModelRoute((name,) if name in settings.limits else ())
    return found
