"""What is wrong with a configuration beyond the kinds of its values: names that lead nowhere, and settings that exclude each other."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from callboard.actors.settings import CompanySettings, UnknownModelError, route

_HANDLER = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class ConfigError(ValueError):
    """A configuration that cannot be used. `where` names file and key (or variable, or option); `hint` says what to do."""

    def __init__(self, where: str, problem: str, hint: str | None = None) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem
        self.hint = hint


def check_meaning(config: CompanySettings, where: Callable[[tuple[str, ...]], str]) -> None:
    """Raise ConfigError for what each key allows by itself, and what makes no sense together. `where` names a key by its path."""
    for alias, model in config.models.items():
        if model.provider not in config.providers:
            raise ConfigError(
                where(("models", alias, "provider")),
                f"unknown provider {model.provider!r} (known: {', '.join(config.providers)})",
                did_you_mean(model.provider, config.providers),
            )
        for position, name in enumerate(model.fallback):
            check_model(config, name, f"{where(('models', alias, 'fallback'))}[{position}]")
    for name in config.limits:
        if name not in config.providers:
            raise ConfigError(
                where(("limits", name)),
                f"limits are given by provider, and {name!r} is none (known: {', '.join(config.providers)})",
                did_you_mean(name, config.providers) or "limits of one model go into [models.ALIAS.limits]",
            )
    _check_money(config, where)
    for job_type, handler in config.handlers.items():
        if not _HANDLER.fullmatch(handler):
            raise ConfigError(where(("handlers", job_type)), f'expected "package.module:function", not {handler!r}')
    if config.runners.min > config.runners.max:
        raise ConfigError(
            where(("runners", "min")),
            f"{config.runners.min} is more than runners.max, which is {config.runners.max}",
        )
    if config.groups:
        from callboard.actors.roster import runner_groups

        try:
            runner_groups(config)
        except ValueError as error:
            raise ConfigError(where(("groups",)), str(error)) from error
    if config.default_model is not None:
        check_model(config, config.default_model, where(("default_model",)))


def _check_money(config: CompanySettings, where: Callable[[tuple[str, ...]], str]) -> None:
    if config.prices.file is not None:
        from callboard.actors.prices import PriceTableError, load_table

        try:
            load_table(config.prices.file)
        except PriceTableError as error:
            raise ConfigError(
                where(("prices", "file")), str(error), "`callboard prices refresh --to FILE` writes one"
            ) from error
    for name, budget in config.budgets.items():
        from callboard.actors.shared_budgets import budget_of

        try:
            budget_of(name, budget, config)
        except ValueError as error:
            field = str(error).partition(" ")[0]
            path = ("budgets", name, field) if field in budget.__struct_fields__ else ("budgets", name)
            raise ConfigError(where(path), str(error)) from error


def check_model(config: CompanySettings, model: str, where: str) -> None:
    """Raise ConfigError unless `model` is an alias or a `provider:model` of this configuration."""
    try:
        route(config, model)
    except UnknownModelError as error:
        names = [*config.models, *(f"{name}:" for name in config.providers)]
        hint = did_you_mean(model, names) or did_you_mean(model.partition(":")[0] + ":", names)
        raise ConfigError(where, str(error), hint or "write it as provider:model, or add [models.ALIAS]") from error


def did_you_mean(word: str, known: Mapping[str, Any] | list[str]) -> str | None:
    """The known word that was most likely meant, as a question; None if none is near."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.7)
    return f"did you mean {close[0]!r}?" if close else None
