"""From flags, environment and `callboard.toml` to one typed, checked `Config`; every error names the file, the key and what is allowed.

A setting resolves flag > environment > file > default, each key by itself. Only msgspec and tomllib are imported, because the worker
process loads this module. Keys are named (`key_env`, `key_file`), never held: one pasted into the file is refused.
"""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin

import msgspec

from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import (
    CompanySettings,
    ModelSettings,
    PriceSettings,
    RetrySettings,
    RunnerSettings,
)
from callboard.config_checks import ConfigError as ConfigError  # noqa: PLC0414 - where hosts look for it
from callboard.config_checks import check_meaning, did_you_mean

CONFIG_FILE = "callboard.toml"
"""Looked for in the current directory when neither a path nor `CALLBOARD_CONFIG` is given."""

AUTO = "auto"
"""The `base_url` of a provider that is the embedded simulator, started when it is needed."""

DEFAULT_DATABASE = "sqlite:///callboard.db"
DEFAULT_MODEL = "simulator:extract"
"""What runs when nothing is configured. It costs nothing: real money is spent only on a model the user names."""

BUILTIN_PROVIDERS: Mapping[str, Mapping[str, Any]] = {
    "simulator": {"wire": "openai-chat", "base_url": AUTO, "max_tokens_field": "max_tokens"},
    "openai": {"wire": "openai-chat", "base_url": "https://api.openai.com/v1", "key_env": "OPENAI_API_KEY"},
    "anthropic": {
        "wire": "anthropic-messages",
        "base_url": "https://api.anthropic.com",
        "key_env": "ANTHROPIC_API_KEY",
    },
    "gemini": {
        "wire": "gemini",
        "base_url": "https://generativelanguage.googleapis.com",
        "key_env": "GEMINI_API_KEY",
    },
    "ollama": {"wire": "ollama", "base_url": "http://localhost:11434", "allow_private": True},
}
"""Usable with no file. A `[providers.NAME]` of the same name changes single keys of these."""

BUILTIN_MODELS: Mapping[str, Mapping[str, Any]] = {
    DEFAULT_MODEL: {"provider": "simulator", "model": "extract", "price": {"input": 0, "output": 0}},
}

_ENV_PREFIX = "CALLBOARD_"
_OTHER_VARIABLES = frozenset({"CALLBOARD_CONFIG", "CALLBOARD_DEBUG", "CALLBOARD_SQLITE"})
_SECRET = re.compile(
    r"\b(sk-[A-Za-z0-9_-]{12,}|AIza[A-Za-z0-9_-]{20,}|gsk_[A-Za-z0-9]{12,}|xai-[A-Za-z0-9]{12,}|Bearer\s+\S{8,})"
)
_KEY_NAMES = frozenset({"api_key", "apikey", "key", "token", "secret", "password"})
_SCHEME = re.compile(r"[a-z][a-z0-9+]*:")

_S = TypeVar("_S", bound=msgspec.Struct)
_Path = tuple[str, ...]


class EmbeddedProvider(ProviderSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider whose `base_url` is "auto": the simulator, which whoever runs the company starts and puts the real URL in."""

    def __post_init__(self) -> None:
        """Accept "auto", and a real URL as any provider does."""
        if self.base_url != AUTO:
            super().__post_init__()


def _builtin_providers() -> dict[str, ProviderSettings]:
    return {name: EmbeddedProvider(name=name, **values) for name, values in BUILTIN_PROVIDERS.items()}


def _builtin_models() -> dict[str, ModelSettings]:
    return {
        name: ModelSettings(**{**values, "price": PriceSettings(**values["price"])})
        for name, values in BUILTIN_MODELS.items()
    }


class Config(CompanySettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a worker, an embedded `Supervisor` or a command needs to know. Safe to build in code; `load_config` builds it from files.

    `profile`: "solo" is one runner, strictly one job at a time (it overrides `runners`); "pool" grows and shrinks between `runners.min`
    and `runners.max`. `log_level` and `log_format` concern the worker process only.
    """

    database: str = DEFAULT_DATABASE
    profile: Literal["solo", "pool"] = "pool"
    default_model: str | None = DEFAULT_MODEL
    providers: dict[str, ProviderSettings] = msgspec.field(default_factory=_builtin_providers)
    models: dict[str, ModelSettings] = msgspec.field(default_factory=_builtin_models)
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    def __post_init__(self) -> None:
        """Let the solo profile mean one runner, whatever the pool is configured with; without the simulator there is no default of ours."""
        if "simulator" not in self.providers:
            if self.default_model == DEFAULT_MODEL:
                msgspec.structs.force_setattr(self, "default_model", None)
            others = {name: model for name, model in self.models.items() if name != DEFAULT_MODEL}
            msgspec.structs.force_setattr(self, "models", others)
        if self.profile == "solo" and (self.runners.min, self.runners.max) != (1, 1):
            msgspec.structs.force_setattr(self, "runners", msgspec.structs.replace(self.runners, min=1, max=1))

    def to_json(self) -> str:
        """One line of JSON that `config_from_json` reads back: how a configuration is handed to a child process. Holds no secret."""
        return msgspec.json.encode(self).decode()


class Setting(msgspec.Struct, frozen=True):
    """A scalar setting, as environment and documentation see it. `key` is dotted, as in the file."""

    key: str
    variable: str
    type: Any
    default: Any


def scalar_settings() -> list[Setting]:
    """Every setting that one environment variable can hold, in the order of the file."""
    return [Setting(".".join(path), _variable(path), kind, default) for path, kind, default in _scalars(Config, ())]


def unknown_variables(env: Mapping[str, str]) -> list[str]:
    """Find the `CALLBOARD_…` variables of `env` that no setting reads: spelling mistakes, most likely."""
    known = {setting.variable for setting in scalar_settings()} | _OTHER_VARIABLES
    return sorted(name for name in env if name.startswith(_ENV_PREFIX) and name not in known)


def database_url(value: str) -> str:
    """Turn a database as people name it into a URL: a URL as it is, a path as an SQLite URL."""
    return value if _SCHEME.match(value) else f"sqlite:///{value}"


def load_config(
    path: str | Path | None = None, *, env: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Read and check the configuration.

    `path`: the file; else `CALLBOARD_CONFIG`; else `callboard.toml` in the current directory, if there is one. `env`: the environment
    (default: the process's). `overrides`: what was given as an option, by dotted key; None values are as if not given.

    Raises ConfigError. May be called from any thread.
    """
    env = os.environ if env is None else env
    chosen = path or env.get("CALLBOARD_CONFIG") or None
    file = Path(chosen) if chosen else Path(CONFIG_FILE)
    raw = _read(file) if chosen or file.exists() else {}
    sources: dict[_Path, str] = {}
    for setting in scalar_settings():
        value = env.get(setting.variable)
        if value:
            _put(raw, tuple(setting.key.split(".")), value, str(file), sources, setting.variable)
    _apply(overrides, raw, str(file), sources)
    return _checked(raw, str(file), sources, env_names={setting.variable for setting in scalar_settings()})


def config_from_json(
    text: str | bytes, *, overrides: Mapping[str, Any] | None = None, source: str = "the configuration on stdin"
) -> Config:
    """Read back what `Config.to_json` wrote, with `overrides` as in `load_config`. Raises ConfigError."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise ConfigError(source, f"not JSON: {error}") from error
    sources: dict[_Path, str] = {}
    if isinstance(raw, dict):
        _apply(overrides, raw, source, sources)
    return _checked(raw, source, sources, builtins=False)


# --- Reading -----------------------------------------------------------------------------------------------------------------------------


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(str(file), "no such file", "name an existing file with --config, or leave it out") from None
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(file), f"not UTF-8 text: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            str(file), f"not valid TOML: {error}", "strings need quotes; see docs/configuration.md"
        ) from error


def _apply(overrides: Mapping[str, Any] | None, raw: dict[str, Any], file: str, sources: dict[_Path, str]) -> None:
    for key, value in (overrides or {}).items():
        if value is not None:
            _put(raw, tuple(key.split(".")), value, file, sources, f"option {key}")


def _put(raw: dict[str, Any], path: _Path, value: Any, file: str, sources: dict[_Path, str], source: str) -> None:
    table = raw
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: {part}", "expected a table", f"write it as [{part}]")
    table[path[-1]] = value
    sources[path] = source


class _Source(msgspec.Struct):
    """Where values came from, so that an error can say so."""

    file: str
    by_path: dict[_Path, str]
    text: frozenset[str]

    def where(self, path: _Path) -> str:
        return self.by_path.get(path) or f"{self.file}: {'.'.join(path)}"

    def strict(self, path: _Path) -> bool:
        return self.by_path.get(path) not in self.text


def _checked(
    raw: Any, file: str, sources: dict[_Path, str], *, env_names: set[str] | None = None, builtins: bool = True
) -> Config:
    source = _Source(file, sources, frozenset(env_names or ()))
    if not isinstance(raw, dict):
        raise ConfigError(file, f"expected a table of settings, not {_kind(raw)}")
    for path, value in _leaves(raw, ()):
        _refuse_secret(path, value, source)
    if builtins:
        for section, defaults in (("providers", BUILTIN_PROVIDERS), ("models", BUILTIN_MODELS)):
            given = raw.setdefault(section, {})
            if isinstance(given, dict):
                for name, values in defaults.items():
                    if isinstance(given.setdefault(name, {}), dict):
                        given[name] = {**values, **given[name]}
    config = _build(Config, raw, (), source)
    config = msgspec.structs.replace(config, database=database_url(config.database))
    if (
        config.profile == "solo"
        and ("runners", "max") in sources
        and int(raw["runners"]["max"]) > 1
        and sources[("runners", "max")].startswith("option")
    ):
        raise ConfigError("option runners.max", "the solo profile has one runner", "ask for --profile pool as well")
    check_meaning(config, source.where)
    return config


def _build(kind: type[_S], data: Any, path: _Path, source: _Source) -> _S:
    """Make a Struct from raw data, part by part, because msgspec's own path does not name the keys of a table of tables."""
    if not isinstance(data, dict):
        raise ConfigError(source.where(path), f"expected a table, not {_kind(data)}")
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    if kind is RetrySettings:
        data = _types_apart(data)
    for key in data:
        if key not in fields:
            raise ConfigError(source.where((*path, key)), *_unknown_key(key, fields))
    values: dict[str, Any] = {}
    for name, field in fields.items():
        here = path if kind is RetrySettings and name == "types" else (*path, name)
        if name not in data:
            if field.required:
                raise ConfigError(source.where(here), f"missing; expected {_expected(field.type)}")
            continue
        struct, of_table = _struct_of(field.type)
        if struct is not None and of_table:
            if not isinstance(data[name], dict):
                raise ConfigError(source.where(here), f"expected tables [{name}.NAME], not {_kind(data[name])}")
            values[name] = {key: _named(struct, key, value, (*here, key), source) for key, value in data[name].items()}
        elif struct is not None and data[name] is not None:
            values[name] = _build(struct, data[name], here, source)
        else:
            values[name] = _leaf(field.type, data[name], here, source)
    try:
        return kind(**values)
    except ValueError as error:
        # A settings type's own check: its sentence begins with the field's name.
        name = re.split(r"[ .]", str(error), maxsplit=1)[0]
        raise ConfigError(source.where((*path, name) if name in fields else path), str(error)) from error


def _types_apart(data: dict[str, Any]) -> dict[str, Any]:
    """In [retries], every table is of a job type: [retries.TYPE]. `to_json` has them under `types`."""
    types = {key: value for key, value in data.items() if isinstance(value, dict)}
    nested = types.get("types")
    if nested is not None and all(isinstance(value, dict) for value in nested.values()):
        types = {**nested, **{key: value for key, value in types.items() if key != "types"}}
    return {**{key: value for key, value in data.items() if not isinstance(value, dict)}, "types": types}


def _named(kind: type[_S], name: str, data: Any, path: _Path, source: _Source) -> _S:
    """Make an entry of a table of tables; one that carries its own name gets it from its key."""
    if isinstance(data, dict) and "name" in kind.__struct_fields__:
        if data.get("name", name) != name:
            raise ConfigError(source.where((*path, "name")), f"the name is already given by the table: {name!r}")
        data = {**data, "name": name}
    if kind is ProviderSettings:
        return cast("_S", _build(EmbeddedProvider, data, path, source))
    return _build(kind, data, path, source)


def _leaf(kind: Any, value: Any, path: _Path, source: _Source) -> Any:
    try:
        return msgspec.convert(value, kind, strict=source.strict(path))
    except msgspec.ValidationError as error:
        problem = str(error)
        reason, _, at = problem.partition(" - at `$")
        wanted = _expected(kind)
        inside = f" at {at.rstrip('`')}" if at else ""
        detail = "" if _is_plain(reason) else f" ({reason[0].lower()}{reason[1:]}{inside})"
        raise ConfigError(source.where(path), f"expected {wanted}, not {_shown(value)}{detail}") from error


# --- Meaning -----------------------------------------------------------------------------------------------------------------------------


def _refuse_secret(path: _Path, value: Any, source: _Source) -> None:
    if isinstance(value, str) and _SECRET.search(value):
        raise ConfigError(
            source.where(path),
            "this looks like an API key",
            "name the variable in key_env; keys are not kept in this file",
        )


def _leaves(data: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, (*path, str(key)))
    elif isinstance(data, list):
        for value in data:
            yield from _leaves(value, path)
    else:
        yield path, data


def _unknown_key(key: str, fields: Mapping[str, Any]) -> tuple[str, str]:
    if key.lower() in _KEY_NAMES and "key_env" in fields:
        return "keys are not kept in this file", "name the variable in key_env"
    return "unknown key", did_you_mean(key, fields) or f"known here: {', '.join(fields)}"


# --- Types, in words ---------------------------------------------------------------------------------------------------------------------


def _struct_of(kind: Any) -> tuple[type[msgspec.Struct] | None, bool]:
    """Find the Struct a field holds (also optionally), and whether it holds a table of them by name."""
    for option in _options(kind):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            return option, False
        if get_origin(option) is dict:
            inner = get_args(option)[1]
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                return inner, True
    return None, False


def _options(kind: Any) -> list[Any]:
    if get_origin(kind) in (Union, UnionType):
        return [option for part in get_args(kind) for option in _options(part)]
    return [kind]


def _scalars(kind: type[msgspec.Struct], path: _Path) -> Iterator[tuple[_Path, Any, Any]]:
    for field in msgspec.structs.fields(kind):
        struct, of_table = _struct_of(field.type)
        here = (*path, field.name)
        if struct is RunnerSettings or (struct is not None and not of_table):
            yield from _scalars(struct, here)
        elif struct is None and not any(
            get_origin(option) in (dict, list, tuple, frozenset) for option in _options(field.type)
        ):
            yield here, field.type, None if field.default is msgspec.NODEFAULT else field.default


def _variable(path: _Path) -> str:
    return _ENV_PREFIX + "_".join(path).upper()


def describe_type(kind: Any) -> str:
    """Say a setting's type in words: what an error says was expected, and what the documentation's table shows."""
    return _expected(kind)


def _expected(kind: Any) -> str:
    words = []
    for option in _options(kind):
        base, metas = (get_args(option)[0], get_args(option)[1:]) if get_origin(option) is Annotated else (option, ())
        if base is type(None):
            continue
        if get_origin(base) is Literal:
            words.append(" or ".join(f'"{value}"' for value in get_args(base)))
            continue
        word = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}.get(base)
        word = word or {dict: "a table", list: "a list", tuple: "a list", frozenset: "a list"}.get(
            get_origin(base) or base, str(base)
        )
        words.append(word + "".join(_bounds(meta) for meta in metas if isinstance(meta, msgspec.Meta)))
    return " or ".join(words)


def _bounds(meta: msgspec.Meta) -> str:
    if meta.ge is not None:
        return f" from {meta.ge} to {meta.le}" if meta.le is not None else f" of at least {meta.ge}"
    return f" above {meta.gt}" if meta.gt is not None else ""


def _is_plain(reason: str) -> bool:
    """Whether msgspec's sentence says no more than ours does."""
    return reason.startswith(("Expected `", "Invalid enum value"))


def _kind(value: Any) -> str:
    return {
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "a table",
    }.get(type(value), type(value).__name__)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
