"""Scripted faults: rules that say which requests go wrong, how often, and how.

Rules come as JSON, from Python or from the command line; every mistake in one is refused with the name of the field, because a rule
that silently never matches makes a test that cannot fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_NUMBER = (int, float)
_CHUNKS: dict[str, Any] = {"n": 1}
_ALL_OR_N: dict[str, Any] = {"n": None}
_REQUIRED: Any = object()

# For every kind: its parameters with their defaults. docs/simulator.md describes each; a test holds the two together.
KINDS: dict[str, dict[str, Any]] = {
    "status": {
        "status": _REQUIRED,
        "type": None,
        "code": None,
        "message": None,
        "retry_after": None,
        "retry_after_ms": None,
        "headers": None,
    },
    "html": {"status": 502},
    "empty": {"status": 200},
    "malformed_json": _CHUNKS,
    "slow_first_byte": {"seconds": _REQUIRED},
    "delay": {"seconds": _REQUIRED},
    "stall": _CHUNKS,
    "ping_only": {"n": 0, "interval": 1.0},
    "cut": _CHUNKS,
    "no_terminal": _ALL_OR_N,
    "unclosed_event": _ALL_OR_N,
    "error_event": {"n": 1, "type": None, "code": None, "message": None},
    "redirect": {"url": _REQUIRED, "status": 307},
    "barrier": {"n": _REQUIRED},
    "content_filter": {},
    "refusal": {},
    "reply": {"text": _REQUIRED},
    "missing_usage": {},
    "huge_line": {"bytes": 17 * 1024 * 1024},
    "bom": {},
    "crlf": {},
    "cr": {},
}
WHOLE = frozenset(
    {
        "slow_first_byte",
        "delay",
        "barrier",
        "content_filter",
        "refusal",
        "reply",
        "missing_usage",
        "huge_line",
        "bom",
        "crlf",
        "cr",
    }
)
"""The kinds after which the client has a whole reply: their requests are journalled as completed."""

_TYPES: dict[str, tuple[type, ...]] = {
    "status": (int,),
    "type": (str,),
    "code": (str,),
    "message": (str,),
    "retry_after": _NUMBER,
    "retry_after_ms": _NUMBER,
    "headers": (dict,),
    "n": (int,),
    "seconds": _NUMBER,
    "interval": _NUMBER,
    "url": (str,),
    "text": (str,),
    "bytes": (int,),
}
_MATCHES = {"contains", "model", "wire"}
_WIRES = {"openai", "anthropic", "gemini", "ollama"}


class FaultError(ValueError):
    """A fault rule that cannot be understood; the message names the field."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: a kind of `KINDS` with its parameters, defaults filled in."""

    kind: str
    parameters: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.parameters[name]


@dataclass(slots=True, eq=False)
class FaultRule:
    """A fault, whom it meets, and how often it has. `times` None is for ever; the first `after` matches are spared."""

    fault: Fault
    contains: str | None = None
    model: str | None = None
    wire: str | None = None
    times: int | None = None
    after: int = 0
    seen: int = field(default=0)
    used: int = field(default=0)

    def take(self, text: str, model: str, wire: str) -> bool:
        """Return whether this request gets the fault, and count it."""
        if (
            (self.wire is not None and self.wire != wire)
            or (self.model is not None and self.model != model)
            or (self.contains is not None and self.contains not in text)
            or (self.times is not None and self.used >= self.times)
        ):
            return False
        self.seen += 1
        if self.seen <= self.after:
            return False
        self.used += 1
        return True

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON, with its counts."""
        match = {name: getattr(self, name) for name in sorted(_MATCHES) if getattr(self, name) is not None}
        fault = {"kind": self.fault.kind, **self.fault.parameters}
        return {
            "match": match,
            "times": self.times,
            "after": self.after,
            "fault": fault,
            "seen": self.seen,
            "used": self.used,
        }


def read_rule(rule: Any) -> FaultRule:
    """Return the rule that a JSON object describes. Raises FaultError that names what is wrong."""
    if not isinstance(rule, Mapping):
        raise FaultError(
            f"a fault rule is an object like {{'fault': {{'kind': 'cut', 'n': 3}}, 'times': 1}}, not {rule!r}"
        )
    _refuse_unknown("fault rule", rule, {"match", "times", "after", "fault"})
    match = rule.get("match") or {}
    if not isinstance(match, Mapping):
        raise FaultError(f"fault rule: 'match' must be an object, not {match!r}")
    _refuse_unknown("fault rule: 'match'", match, _MATCHES)
    for name, value in match.items():
        if not isinstance(value, str):
            raise FaultError(f"fault rule: 'match.{name}' must be a string, not {value!r}")
    if match.get("wire") not in {None, *_WIRES}:
        raise FaultError(f"fault rule: 'match.wire' must be one of {sorted(_WIRES)}, not {match['wire']!r}")
    times: Any = rule.get("times")
    after: Any = rule.get("after", 0)
    if times is not None:
        _check_count("times", times)
    _check_count("after", after)
    return FaultRule(
        _read_fault(rule.get("fault")), match.get("contains"), match.get("model"), match.get("wire"), times, after
    )


def parse_rule(text: str) -> FaultRule:
    """Return the rule on a command line: JSON, or `KIND` or `KIND:name=value,…` with the fields of rule, match and fault side by side.

    `status:status=429,retry_after=2,times=3` is `{"fault": {"kind": "status", "status": 429, "retry_after": 2}, "times": 3}`.
    Raises FaultError.
    """
    if text.lstrip().startswith("{"):
        try:
            return read_rule(json.loads(text))
        except json.JSONDecodeError as error:
            raise FaultError(f"fault rule {text!r} is not valid JSON: {error}") from error
    kind, _, rest = text.partition(":")
    rule: dict[str, Any] = {"match": {}, "fault": {"kind": kind.strip()}}
    for pair in filter(None, rest.split(",")):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise FaultError(f"fault rule {text!r}: {pair!r} is not name=value")
        target = rule["match"] if name in _MATCHES else rule if name in {"times", "after"} else rule["fault"]
        target[name] = value if name in _MATCHES else _value(name, value)
    return read_rule(rule)


def choose(rules: list[FaultRule], text: str, model: str, wire: str) -> FaultRule | None:
    """Return the first rule that takes this request, or None."""
    return next((rule for rule in rules if rule.take(text, model, wire)), None)


def _read_fault(fault: Any) -> Fault:
    if not isinstance(fault, Mapping):
        raise FaultError(f"fault rule: 'fault' must be an object with a 'kind', not {fault!r}")
    kind = fault.get("kind")
    if kind not in KINDS:
        raise FaultError(f"fault rule: 'fault.kind' must be one of {', '.join(sorted(KINDS))}, not {kind!r}")
    known = KINDS[kind]
    _refuse_unknown(f"fault {kind!r}", fault, {"kind", *known})
    parameters = {name: fault.get(name, default) for name, default in known.items()}
    for name, value in parameters.items():
        if value is _REQUIRED:
            raise FaultError(f"fault {kind!r} needs {name!r}")
        optional = known[name] is None and value is None
        if not optional and not _is(value, _TYPES[name]):
            expected = " or ".join(one.__name__ for one in _TYPES[name])
            raise FaultError(f"fault {kind!r}: {name!r} must be {expected}, not {value!r}")
    if "status" in parameters and not 200 <= parameters["status"] <= 599:
        raise FaultError(f"fault {kind!r}: 'status' must be between 200 and 599, not {parameters['status']!r}")
    return Fault(kind, parameters)


def _refuse_unknown(where: str, found: Mapping[str, Any], known: set[str]) -> None:
    if unknown := set(found) - known:
        raise FaultError(f"{where}: unknown field {min(map(str, unknown))!r}; known: {', '.join(sorted(known))}")


def _check_count(name: str, value: Any) -> None:
    if not _is(value, (int,)) or value < 0:
        raise FaultError(f"fault rule: {name!r} must be a whole number, 0 or more, not {value!r}")


def _is(value: Any, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _value(name: str, text: str) -> Any:
    """Read a number where the parameter is one, and keep the text otherwise (the rule's own check then names it)."""
    if name in {"times", "after"} or _TYPES.get(name, (str,)) != (str,):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
