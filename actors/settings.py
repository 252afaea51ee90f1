"""What the company is configured with: typed, validated, free of secrets.

`callboard.config` reads these from `callboard.toml`; a host may build them in code. Durations are seconds. Keys are named here
(`key_env`, `key_file`), never held.
"""

import contextlib
from typing import Annotated, Literal

import msgspec

from .batch_settings import BatchSettings, EmbeddingSettings
from .cache_settings import CacheSettings
from .money_settings import BudgetSettings, PricesSettings
from .money_settings import PriceSettings as PriceSettings  # noqa: PLC0414 - where others look for it
from .prices import price_for
from .providers.settings import ProviderSettings

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits of one key, held by all workers of a database together. None: not limited on our side (the provider's headers still count).

    `tokens_…` are input and output together. A day ends at midnight in `timezone` (an IANA name; Gemini counts by "America/Los_Angeles").
    `warm_up`: begin at half of the minute's limits, and grow by half every quarter of an hour, as providers ask of new load.
    """

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    input_tokens_per_minute: Count | None = None
    output_tokens_per_minute: Count | None = None
    requests_per_day: Count | None = None
    tokens_per_day: Count | None = None
    input_tokens_per_day: Count | None = None
    output_tokens_per_day: Count | None = None
    concurrency: Count | None = None
    timezone: str = "UTC"
    warm_up: bool = False

    def __post_init__(self) -> None:
        _check_timezone(self.timezone)


def _check_timezone(name: str) -> None:
    if name == "UTC":
        return
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(
            f"timezone {name!r} is not known: give an IANA name like 'America/Los_Angeles' (and install tzdata where the system has none)"
        ) from error


FallbackOn = Literal[
    "rate",
    "quota",
    "auth",
    "not_found",
    "invalid",
    "context",
    "too_large",
    "overloaded",
    "server",
    "connect",
    "timeout",
    "truncated",
    "malformed",
    "refusal",
    "filter",
]


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An alias: what jobs call a model, and where it is. Models of one `family` share one limit key.

    `fallback`: the models to go on with, one after the other, where this one fails in one of the ways of `fallback_on` (classes of failure, and
    "refusal" and "filter", which are answers). `unsupported`: request fields that this model refuses, beside those of its provider.
    """

    provider: str
    model: str
    family: str | None = None
    limits: LimitSettings | None = None
    price: PriceSettings | None = None
    max_output: Count | None = None
    fallback: tuple[str, ...] = ()
    fallback_on: tuple[FallbackOn, ...] = ("overloaded", "context", "not_found")
    unsupported: frozenset[str] = frozenset()


class RunnerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The pool: it grows to `max` as jobs wait and limits allow, and shrinks to `min` when runners have idled for `idle_timeout`."""

    min: Annotated[int, msgspec.Meta(ge=1)] = 1
    max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 16
    idle_timeout: Positive = 30.0
    memory_mb: Count = 500


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is different for the failures of one job type; what is None is as for all."""

    kind: Literal["exponential", "fixed"] | None = None
    base: Positive | None = None
    cap: Positive | None = None
    jitter: bool | None = None
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None


class RetrySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a failed attempt is followed by another, in seconds: `base`·2ⁿ up to `cap` (exponential), or always `base` (fixed).

    `jitter` spreads them: an exponential delay is anything from 0 to that (full jitter), a fixed one up to 10 % longer. `max_attempts` goes
    before what the job says, None leaves it to the job. `types`: what is different for single job types, in the file [retries.TYPE].
    """

    kind: Literal["exponential", "fixed"] = "exponential"
    base: Positive = 1.0
    cap: Positive = 60.0
    jitter: bool = True
    max_attempts: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    types: dict[str, RetryPolicy] = {}

    def of(self, job_type: str) -> "RetrySettings":
        """What holds for one job type."""
        policy = self.types.get(job_type)
        if policy is None:
            return self
        return msgspec.structs.replace(
            self, **{name: value for name, value in msgspec.structs.asdict(policy).items() if value is not None}
        )


Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]


class ClaimSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What this worker claims at all: jobs of these types and queues (None: of any), that require no more than `tags`."""

    types: tuple[Name, ...] | None = None
    queues: tuple[Name, ...] | None = None
    tags: tuple[Name, ...] = ()


class GroupSettings(ClaimSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many of the runners claim only this, of what the worker claims. They have its tags as well as their own."""

    runners: Count


class AgeingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job that has waited for `after` seconds is raised by `step`, and again for every `every` more, up to `max` above its priority.

    With `max` above the distance of the priorities in use, none waits for ever behind a stream of higher ones.
    """

    after: Positive = 60.0
    step: Count = 10
    every: Positive = 60.0
    max: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] = 1000


class CompanySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a company of actors needs to know."""

    database: str
    runners: RunnerSettings = RunnerSettings()
    claims: ClaimSettings = ClaimSettings()
    groups: dict[str, GroupSettings] = {}
    ageing: AgeingSettings | None = None
    providers: dict[str, ProviderSettings] = {}
    models: dict[str, ModelSettings] = {}
    limits: dict[str, LimitSettings] = {}
    prices: PricesSettings = PricesSettings()
    budgets: dict[str, BudgetSettings] = {}
    batch: BatchSettings = BatchSettings()
    embeddings: EmbeddingSettings = EmbeddingSettings()
    cache: CacheSettings = CacheSettings()
    handlers: dict[str, str] = {}
    retries: RetrySettings = RetrySettings()
    default_model: str | None = None
    poll_interval: Positive = 0.1
    lease_ttl: Annotated[float, msgspec.Meta(ge=1)] = 30.0
    sweep_interval: Positive = 0.5
    retention_days: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    park_after: Positive = 3.0
    drain_timeout: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    job_timeout: Positive = 3600.0
    first_token_timeout: Positive = 120.0
    no_progress_timeout: Positive = 60.0
    total_timeout: Positive = 900.0
    max_abandoned: Count = 4
    synchronous: Literal["FULL", "NORMAL"] = "FULL"


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model that a job names leads. `name` is what the provider calls it, `wire` the format that it speaks.

    `fallback`: the models to go on with after the failures, and the finishes, of `fallback_on`.
    `charges_on_admission`: its token limit is charged when a request is admitted, by the output limit, and not corrected afterwards (OpenAI).
    """

    provider: str
    name: str
    limit_key: str
    limits: LimitSettings
    price: PriceSettings | None
    max_output: int | None
    unsupported: frozenset[str] = frozenset()
    fallback: tuple[str, ...] = ()
    fallback_on: frozenset[str] = frozenset()
    charges_on_admission: bool = False
    wire: str = ""


class UnknownModelError(LookupError):
    """A job names a model that is neither an alias nor `provider:model` of a configured provider."""


def route(settings: CompanySettings, model: str | None) -> Route:
    """Resolve an alias, or a `provider:model` of a configured provider; None is the default model.

    The limit key is the provider's account and the model's family. Limits given for a provider (`limits.NAME`) cover all its models
    together, unless the model has its own.

    Raises UnknownModelError, naming what is known.
    """
    wanted = model if model is not None else settings.default_model
    if wanted is None:
        raise UnknownModelError("the job names no model, and no default_model is configured")
    alias = settings.models.get(wanted)
    if alias is None:
        provider, colon, name = wanted.partition(":")
        if not colon or not name or provider not in settings.providers:
            known = ", ".join([*settings.models, *(f"{p}:…" for p in settings.providers)]) or "none"
            raise UnknownModelError(f"model {wanted!r} is not configured (known: {known})")
        alias = ModelSettings(provider=provider, model=name)
    provider_settings = settings.providers.get(alias.provider)
    if provider_settings is None:
        raise UnknownModelError(f"model {wanted!r} leads to provider {alias.provider!r}, which is not configured")
    shared = settings.limits.get(alias.provider)
    if alias.limits is None and shared is not None:
        limit_key, limits = alias.provider, shared
    else:
        limit_key, limits = f"{alias.provider}/{alias.family or alias.model}", alias.limits or LimitSettings()
    return Route(
        provider=alias.provider,
        name=alias.model,
        limit_key=limit_key,
        limits=limits,
        price=alias.price
        if alias.price is not None
        else price_for(settings.prices.file, alias.provider, provider_settings.base_url, alias.model),
        max_output=alias.max_output,
        unsupported=alias.unsupported,
        fallback=alias.fallback,
        fallback_on=frozenset(alias.fallback_on),
        charges_on_admission=provider_settings.wire in ("openai-chat", "openai-responses"),
        wire=provider_settings.wire,
    )


def used_providers(settings: CompanySettings) -> set[str]:
    """The providers that the aliases and the default model lead to; others are reached only by jobs that name them."""
    used = {model.provider for model in settings.models.values()}
    if settings.default_model is not None:
        with contextlib.suppress(UnknownModelError):
            used.add(route(settings, settings.default_model).provider)
    return used
