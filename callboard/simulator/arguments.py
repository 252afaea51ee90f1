"""The simulator's settings as command-line flags, both ways: what a process is given, and what a parent writes to give it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from .config import SimulatorConfig
from .faults import parse_rule

_NUMBERS = (
    ("rpm", int, "requests per minute for each key and model"),
    ("rpd", int, "requests per day (Gemini) for each key and model"),
    ("tpm", int, "tokens per minute for each key and model"),
    ("input_tpm", int, "input tokens per minute (Anthropic, Gemini); the default is --tpm"),
    ("output_tpm", int, "output tokens per minute (Anthropic); the default is --tpm"),
    ("concurrency", int, "requests open at once for each key and model"),
    ("window_seconds", float, "how long a minute of the limits lasts"),
    ("latency", float, "seconds before the first byte"),
    ("tokens_per_second", float, "pace of the output"),
    ("default_max_tokens", int, "limit of a request that names none"),
    ("batch_seconds", float, "how long a batch takes; inf: until it is told to end"),
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m callboard.simulator`."""
    found = argparse.ArgumentParser(
        prog="callboard.simulator", description="A provider for tests, on 127.0.0.1 (docs/simulator.md)."
    )
    found.add_argument("--port", type=int, default=0, help="0, the default, takes a free one")
    for name, kind, text in _NUMBERS:
        found.add_argument(_flag(name), type=kind, default=getattr(SimulatorConfig(), name), help=text)
    found.add_argument(
        "--key", action="append", default=[], help="an API key to accept (invented: it is no secret); repeatable"
    )
    found.add_argument(
        "--model", action="append", default=[], help="a model name to serve; repeatable; none serves any name"
    )
    found.add_argument(
        "--fault", action="append", default=[], help="a fault rule: JSON, or KIND:name=value,...; repeatable"
    )
    found.add_argument("--journal", type=Path, help="append every request to this file")
    found.add_argument("--watch-stdin", action="store_true", help="end when standard input ends")
    return found


def config_from(options: argparse.Namespace) -> SimulatorConfig:
    """Return the settings that parsed flags say. Raises ValueError (FaultError for a rule) that names what is wrong."""
    rules = [parse_rule(text).describe() for text in options.fault]
    faults = tuple({name: rule[name] for name in ("match", "times", "after", "fault")} for rule in rules)
    numbers = {name: getattr(options, name) for name, _, _ in _NUMBERS}
    return SimulatorConfig(
        port=options.port,
        keys=tuple(options.key),
        models=tuple(options.model),
        faults=faults,
        journal=options.journal,
        **numbers,
    )


def to_arguments(config: SimulatorConfig) -> list[str]:
    """Return the flags that say these settings."""
    arguments = [f"--port={config.port}"]
    arguments += [f"{_flag(name)}={value}" for name, _, _ in _NUMBERS if (value := getattr(config, name)) is not None]
    arguments += [f"--key={key}" for key in config.keys]
    arguments += [f"--model={model}" for model in config.models]
    arguments += [f"--fault={json.dumps(dict(rule))}" for rule in config.faults]
    if config.journal is not None:
        arguments.append(f"--journal={config.journal}")
    return arguments


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
