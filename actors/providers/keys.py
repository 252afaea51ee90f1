"""API keys: where they come from, and how they are kept from being seen.

A key is resolved when a call is sent and lives in local variables only. It is never put into a message, a job, a log record, an exception
or the database; `Secret` makes an accident show stars, and `redact` scrubs the text that providers and libraries hand back.
"""

import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_STARS = "***"
_Outcome = TypeVar("_Outcome", bound="DataclassInstance")


class KeyUnavailableError(Exception):
    """The configured key cannot be had. The message says which provider, where it was looked for, and what to do; never the key."""


class Secret:
    """A key that shows itself only through `reveal()`. It cannot be pickled, copied or turned into JSON."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the key itself, to be put into a request header and nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({_STARS})"

    def __str__(self) -> str:
        return _STARS

    def __reduce_ex__(self, protocol: object) -> Never:
        raise TypeError("a Secret is not pickled or copied: resolve the key again where it is needed")


def resolve_key(
    name: str, *, env: str | None = None, key_file: str | None = None, environ: Mapping[str, str] | None = None
) -> Secret | None:
    """Return the key of provider `name`: from the environment variable `env` if it is set, else from `key_file`.

    None when neither is configured (a local server needs no key). Reads the file each time, so a rotated key needs no restart.
    Raises KeyUnavailableError when a source is configured and yields no usable key, or when others may read the file.
    Callable from any thread; blocks for the file's read only.
    """
    if env is None and key_file is None:
        return None
    values = os.environ if environ is None else environ
    if env is not None and (value := values.get(env, "").strip()):
        return Secret(checked(value, name, f"environment variable {env}"))
    if key_file is not None:
        return Secret(checked(_read_private(name, Path(key_file).expanduser()), name, f"file {key_file}"))
    raise KeyUnavailableError(
        f"provider {name!r}: environment variable {env} is not set; export it, or name a key_file"
    )


def _read_private(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise KeyUnavailableError(f"provider {name!r}: key file {path} is not a regular file")
            if mode & 0o077:
                shown = oct(stat.S_IMODE(mode))
                raise KeyUnavailableError(
                    f"provider {name!r}: key file {path} has mode {shown}, others may read it; run: chmod 600 {path}"
                )
            raw = file.read(65536)
    except OSError as error:
        raise KeyUnavailableError(f"provider {name!r}: cannot read key file {path}: {error.strerror}") from None
    return raw.decode("utf-8", "replace").strip()


def checked(value: str, name: str, source: str) -> str:
    """Return `value` if a header can hold it. Raises KeyUnavailableError, naming the source and not the value."""
    # A header value with a control or non-ASCII character is refused deep inside the HTTP library, by an error that shows it.
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise KeyUnavailableError(f"provider {name!r}: the key in {source} is empty or has characters that no key has")
    return value


_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s\"',;]+"), rf"\1 {_STARS}"),
    (
        re.compile(
            r"(?i)\b((?:x-|x-goog-|proxy-)?(?:api-key|authorization)|(?:set-)?cookie)(['\"]?\s*[:=,]\s*b?['\"]?)(?!bearer|basic)[^\s\"'&,;]+"
        ),
        rf"\1\2{_STARS}",
    ),
    (re.compile(r"(?i)\b((?:api[_-]?|access[_-]?|auth[_-]?)?(?:key|token)=)[^\s\"'&]+"), rf"\1{_STARS}"),
    (re.compile(r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_*.-]{6,}"), f"sk-{_STARS}"),
    (re.compile(r"AIza[A-Za-z0-9_-]{16,}"), f"AIza{_STARS}"),
)


def conceal(text: str, secrets: Iterable[Secret]) -> str:
    """Return `text` without the given secrets."""
    for secret in secrets:
        value = secret.reveal()
        if value:
            text = text.replace(value, _STARS)
    return text


_NAMES = ("raw_finish", "model", "response_id", "request_id")


def unechoed(outcome: _Outcome, secrets: Collection[Secret]) -> _Outcome:
    """Return a dataclass of an answer or an error with the secrets out of the names in it, which the server gave: it has the key."""
    changed = {}
    for name in _NAMES if secrets else ():
        value = getattr(outcome, name, None)
        if isinstance(value, str) and (hidden := conceal(value, secrets)) != value:
            changed[name] = hidden
    return replace(outcome, **changed) if changed else outcome


def redact(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Return `text` without the given secrets and without anything shaped like a key or an authorisation header."""
    text = conceal(text, secrets)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
