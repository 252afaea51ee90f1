"""What `callboard doctor` finds out about keys and providers."""

import os
from dataclasses import dataclass

from callboard.actors.providers.keys import KeyUnavailableError, Secret, redact
from callboard.actors.providers.settings import ProviderSettings

OK, WARN, FAIL, INFO = "ok", "warning", "wrong", "info"

_TIMEOUT_SECONDS = 10.0
_MODEL_LISTS = {"anthropic-messages": "/v1/models", "gemini": "/v1beta/models", "ollama": "/api/tags"}
_KEY_HEADERS = {"anthropic-messages": ("x-api-key", ""), "gemini": ("x-goog-api-key", "")}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `verdict` is ok, warning, wrong or info; `advice` says what to do."""

    area: str
    verdict: str
    what: str
    advice: str | None = None


def _short(place: str) -> str:
    return place.replace("environment variable ", "$")


def examine_key(provider: ProviderSettings, *, needed: bool) -> tuple[Finding | None, Secret | None]:
    """Look for the provider's key. It is wrong for it to be missing only where a configured model needs it."""
    from callboard.actors.providers.key_sources import key_now  # with asyncio, which --help needs not

    area = f"provider {provider.name}"
    source = " or ".join(_short(place) for place in provider.key_places())
    try:
        key = key_now(provider, os.environ)
    except KeyUnavailableError as error:
        if needed:
            return Finding(
                area,
                FAIL,
                str(error),
                "no call can be made without it; it is read when a call is sent, so no restart is needed",
            ), None
        return Finding(area, INFO, f"no key in {source}; needed only for models of {provider.name}"), None
    return None, key


def examine_provider(provider: ProviderSettings, key: Secret | None, *, needed: bool) -> Finding:
    """Ask the provider for its models: is it reachable, and does it take the key?"""
    import asyncio

    area = f"provider {provider.name}"
    bad = FAIL if needed else WARN
    try:
        status = asyncio.run(_ask(provider, key))
    except Exception as error:  # noqa: BLE001 - whatever hinders a connection is the finding
        said = redact(str(error), [key] if key else []) or type(error).__name__
        return Finding(
            area,
            bad,
            f"{provider.base_url} cannot be reached: {said}",
            "check base_url, the network, and proxy if there is one",
        )
    from callboard.actors.providers.key_sources import source_now

    shown = f"with a key from {_short(source_now(provider, os.environ) or '')}" if key else "without a key"
    if status in (401, 403) or (status == 400 and provider.wire == "gemini"):  # which is how Gemini refuses a key
        return Finding(
            area,
            bad,
            f"{provider.base_url} refuses the key (HTTP {status})",
            "create a new key, or correct where it is read from",
        )
    if 200 <= status < 300:
        return Finding(area, OK, f"{provider.base_url} answers, {shown}")
    if status == 404:
        return Finding(
            area,
            WARN,
            f"{provider.base_url} answers, but lists no models (HTTP 404)",
            "right for some servers; else check base_url",
        )
    return Finding(
        area, WARN, f"{provider.base_url} answers HTTP {status}", "the provider may have a problem; try again"
    )


async def _ask(provider: ProviderSettings, key: Secret | None) -> int:
    import asyncio

    from callboard.actors.providers.adapter import HttpRequest
    from callboard.actors.providers.transport import Sending, open_client

    headers = [("accept", "application/json"), *provider.headers.items()]
    if provider.wire == "anthropic-messages":
        headers.append(("anthropic-version", provider.version))
    if key:
        name, scheme = _KEY_HEADERS.get(provider.wire, ("authorization", "Bearer "))
        headers.append((name, scheme + key.reveal()))
    path = _MODEL_LISTS.get(provider.wire, "/models")
    client = open_client(provider, own_process=True)
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reply = await client.send(HttpRequest("GET", path, tuple(headers), b""), Sending())
            try:
                return reply.status
            finally:
                await reply.close()
    except TimeoutError:
        raise TimeoutError(f"no answer within {_TIMEOUT_SECONDS:g} s") from None
    finally:
        await client.close()
