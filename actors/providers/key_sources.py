"""Where a provider's key comes from when a call is about to be sent: the environment, a file, or the system's keyring.

The keyring is the package `keyring` (<https://pypi.org/project/keyring/>), an extra that is loaded when the first key is asked of it: with its
backends it takes more memory than a worker that never asks should pay.
"""

import asyncio
import threading
import time
from collections.abc import Mapping

from .keys import KeyUnavailableError, Secret, checked, resolve_key
from .settings import ProviderSettings

KEPT_FOR = 60.0
"""Seconds until the keyring is asked again: one question may take longer than the call it is for."""

_lock = threading.Lock()
_kept: dict[str, tuple[float, Secret]] = {}  # by entry; until when


async def key_for(settings: ProviderSettings, environ: Mapping[str, str]) -> Secret | None:
    """Return the key to send, None if the provider has none. Event-loop thread; it is not blocked while the keyring is asked.

    Raises KeyUnavailableError.
    """
    if settings.key_keyring is None or _in(environ, settings.key_env):
        return resolve_key(settings.name, env=settings.key_env, key_file=settings.key_file, environ=environ)
    found = _kept.get(settings.key_keyring)
    if found is not None and found[0] > time.monotonic():
        return found[1]
    return await asyncio.to_thread(_from_keyring, settings.name, settings.key_keyring)


def key_now(settings: ProviderSettings, environ: Mapping[str, str]) -> Secret | None:
    """As `key_for`, for commands: blocks while the keyring is asked. Any thread."""
    if settings.key_keyring is None or _in(environ, settings.key_env):
        return resolve_key(settings.name, env=settings.key_env, key_file=settings.key_file, environ=environ)
    return _from_keyring(settings.name, settings.key_keyring)


def source_now(settings: ProviderSettings, environ: Mapping[str, str]) -> str | None:
    """Return in words where a key that was sent came from, None if none was."""
    told = settings.key_places()
    if not told:
        return None
    return told[0] if not settings.key_env or _in(environ, settings.key_env) or len(told) == 1 else told[1]


def _in(environ: Mapping[str, str], name: str | None) -> bool:
    return name is not None and bool(environ.get(name, "").strip())


def _from_keyring(name: str, entry: str) -> Secret:
    """Ask the keyring, one caller at a time, so that a burst of calls is one question."""
    with _lock:
        until, kept = _kept.get(entry, (0.0, None))
        if kept is not None and until > time.monotonic():
            return kept
        key = Secret(checked(_ask(name, entry), name, f"keyring entry {entry}"))
        _kept[entry] = (time.monotonic() + KEPT_FOR, key)
        return key


def _ask(name: str, entry: str) -> str:
    try:
        import keyring
    except ImportError as error:
        raise KeyUnavailableError(
            f"provider {name!r}: its key is in the keyring, which needs a package that is not here; run: pip install 'callboard[keyring]'"
        ) from error
    service, _, user = entry.rpartition(":")
    try:
        found = keyring.get_password(service, user)
    except Exception as error:  # noqa: BLE001 - backends raise what they like
        # Its words are left out: they are another program's, and may quote what it holds.
        raise KeyUnavailableError(
            f"provider {name!r}: the keyring failed ({type(error).__name__}) when asked for {entry}; try: keyring get {service} {user}"
        ) from None
    if found is None:
        raise KeyUnavailableError(
            f"provider {name!r}: the keyring has no entry {entry}; run: keyring set {service} {user}"
        )
    return found.strip()
