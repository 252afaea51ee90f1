"""`callboard doctor`: look at everything a run depends on, and say what to do about what is wrong. Makes no call that costs anything."""

import os
from collections.abc import Iterator

import click

from callboard.actors.providers.settings import ProviderLoadError, ProviderSettings
from callboard.actors.settings import used_providers
from callboard.config import AUTO, BUILTIN_PROVIDERS, Config, ConfigError, load_config, unknown_variables

from .options import config_options, json_option
from .probes import FAIL, INFO, OK, WARN, Finding


@click.command()
@click.option("--offline", is_flag=True, help="Do not try to reach the providers.")
@json_option
@config_options
def doctor(offline: bool, as_json: bool, config_path: str | None, database: str | None) -> int:
    """Say what is wrong with the configuration, the keys, the providers and the database, and what to do.

    Keys are never shown. Providers are asked for their list of models, which costs nothing. Exit code 1 if something is wrong.
    """
    findings = list(examine(config_path, database, offline=offline))
    wrong = sum(finding.verdict == FAIL for finding in findings)
    if as_json:
        from dataclasses import asdict

        from .text import json_line

        click.echo(json_line({"ok": wrong == 0, "findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        _print(findings)
        if wrong:
            click.echo(f"callboard: {wrong} thing{'s' if wrong > 1 else ''} to put right", err=True)
    return 1 if wrong else 0


def examine(config_path: str | None, database: str | None, *, offline: bool) -> Iterator[Finding]:
    """Look at one thing after the other; a fault in one does not hide the next."""
    from .database_probe import examine_database
    from .probes import examine_key, examine_provider

    try:
        config = load_config(config_path, overrides={"database": database})
    except ConfigError as error:
        yield Finding("configuration", FAIL, str(error), error.hint)
        config = Config()
        if database is None:
            return
        config = load_config(os.devnull, env={}, overrides={"database": database})
    else:
        yield Finding(
            "configuration",
            OK,
            f"default model {config.default_model}, profile {config.profile}, up to {config.runners.max} runners",
        )
    for variable in unknown_variables(os.environ):
        yield Finding(
            "configuration", WARN, f"nothing reads the variable {variable}", "see docs/configuration.md for the names"
        )
    yield from _examine_handlers(config)
    yield from _examine_prices(config)
    yield from examine_database(config)
    used = used_providers(config)
    for name, provider in config.providers.items():
        area = f"provider {name}"
        if provider.wire == "own":
            yield _examine_own(area, provider)
            continue
        if provider.base_url == AUTO:
            yield Finding(area, OK, "the simulator: the worker starts it, nothing is needed")
            continue
        if (
            name in BUILTIN_PROVIDERS
            and name not in used
            and not (provider.key_env or provider.key_file or provider.key_keyring)
        ):
            yield Finding(area, INFO, f"not asked; needed only for models of {name}")
            continue
        key_finding, key = examine_key(provider, needed=name in used)
        if key_finding is not None:
            yield key_finding
            if key_finding.verdict in (FAIL, INFO):
                continue
        if not offline:
            yield examine_provider(provider, key, needed=name in used)


def _examine_prices(config: Config) -> Iterator[Finding]:
    """Models whose calls a budget in dollars refuses, because their price is not known."""
    from callboard.actors.settings import route

    hard = [
        name
        for name, budget in config.budgets.items()
        if budget.dollars is not None and budget.assume is None and budget.scope not in ("model", "provider")
    ]
    named = dict.fromkeys((*([config.default_model] if config.default_model else []), *config.models))
    models = [name for name in named if route(config, name).price is None]
    if hard and models:
        yield Finding(
            "prices",
            WARN,
            f"not known for {', '.join(models)}; the budget {hard[0]!r} is in dollars, so their calls are refused",
            "give them a price ({ input = 0, output = 0 } is free), or the budget an `assume` (docs/money.md)",
        )


def _examine_handlers(config: Config) -> Iterator[Finding]:
    if not config.handlers:
        return
    from callboard.actors.runner.handlers import HandlerLoadError, load_handlers

    for job_type, path in config.handlers.items():
        try:
            load_handlers({job_type: path})
        except HandlerLoadError as error:
            yield Finding("handlers", FAIL, str(error), "make it importable where the worker runs, or correct the path")
        except Exception as error:  # noqa: BLE001 - importing a host's module may raise anything
            yield Finding("handlers", FAIL, f"{job_type}: importing {path} raised {type(error).__name__}: {error}")
        else:
            yield Finding("handlers", OK, f"{job_type}: {path}")


def _examine_own(area: str, provider: ProviderSettings) -> Finding:
    from callboard.actors.providers.own import load_own

    if provider.factory is None:
        return Finding(
            area, WARN, "the host's own, and no factory is named", "give it to Supervisor(providers=…), or set factory"
        )
    try:
        load_own(provider)
    except ProviderLoadError as error:
        return Finding(area, FAIL, str(error), "make it importable where the worker runs, or correct the path")
    return Finding(area, OK, f"the host's own: {provider.factory}")


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    from .display import cell, console

    marks = {OK: ("✓", "green"), WARN: ("!", "yellow"), FAIL: ("✗", "red"), INFO: ("·", "dim")}
    out = console()
    for finding in findings:
        mark, style = marks[finding.verdict]
        out.print(Text(f"{mark} ", style=style) + cell(finding.area, "bold") + cell(f": {finding.what}"))
        if finding.advice:
            out.print(cell(f"    {finding.advice}", style))
