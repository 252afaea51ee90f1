"""What an operator says about one provider: `[providers.NAME]` of the configuration, typed.

A job can never change any of it: it names a provider and a model, and the URL, key and headers come from here.
"""

import re
from typing import Literal

import msgspec

from .keys import redact
from .urls import check_base_url

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}
)
_FRAMING_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "content-type", "accept-encoding"}
)


class ProviderLoadError(ValueError):
    """A provider's `factory` cannot be loaded; the message names the provider and why."""


_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One provider account. Raises ValueError naming the field when built by hand; msgspec's ValidationError when decoded.

    - `wire`: the format it speaks; "own" is a host's own provider, made by `factory` ("package.module:Class") or given to `Supervisor`.
    - `base_url`: where it is, e.g. `https://api.openai.com/v1` or `https://api.anthropic.com`; none for "own".
    - `key_env`, `key_file`, `key_keyring` ("service:user"): where the key is found when a call is sent; the variable wins. None: no key is sent.
    - `allow_private`: permits http and private or loopback addresses: a server of your own.
    - `proxy`: an HTTP or SOCKS proxy's URL. Proxy variables of the environment are ignored.
    - `version`: `anthropic-version`. `organization`, `project`: OpenAI's headers. `workspace`: Anthropic's.
    - `headers`: sent with each request as they are; never a secret, which is refused.
    - `max_tokens_field`: the OpenAI-format field of the output limit. None: `max_completion_tokens` at OpenAI and Azure, else `max_tokens`.
    - `unsupported`: request fields this provider refuses (`temperature`, `top_p`, `stop`, `seed`, `max_output`, `stream_options`, or a name in
      `extra`); they are left out (`on_unsupported = "drop"`) or the call is refused before it is sent (`"error"`).
    - `default_max_output`: tokens, where the format requires a limit and the request names none.
    - `background`: have each streamed call kept and carried on by the provider (OpenAI Responses), so that one whose connection or process is
      lost is taken up again instead of being paid for twice. The provider stores such calls for 30 days.
    - `max_in_flight`: calls open at once in this process; further ones queue.
    """

    name: str
    wire: Literal["openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama", "own"]
    base_url: str = ""
    factory: str | None = None
    key_env: str | None = None
    key_file: str | None = None
    key_keyring: str | None = None
    allow_private: bool = False
    proxy: str | None = None
    version: str = "2023-06-01"
    organization: str | None = None
    project: str | None = None
    workspace: str | None = None
    headers: dict[str, str] = {}
    max_tokens_field: Literal["max_completion_tokens", "max_tokens"] | None = None
    on_unsupported: Literal["drop", "error"] = "drop"
    unsupported: frozenset[str] = frozenset()
    default_max_output: int = 1024
    background: bool = False
    max_in_flight: int = 512

    def __post_init__(self) -> None:
        if self.wire == "own":
            if self.base_url:
                raise ValueError("base_url is not for wire 'own': the provider's own code knows where to go")
        elif not self.base_url:
            raise ValueError("base_url is missing: where the provider is, like https://api.openai.com/v1")
        else:
            check_base_url(self.base_url, allow_private=self.allow_private)
        if self.factory is not None and (self.wire != "own" or not _FACTORY.fullmatch(self.factory)):
            raise ValueError("factory is for wire 'own', as 'package.module:Class'")
        if self.key_keyring is not None:
            if self.key_file is not None:
                raise ValueError("key_keyring and key_file are two places for one key: name one of them")
            service, _, user = self.key_keyring.rpartition(":")
            if not service or not user:
                raise ValueError("key_keyring must be 'service:user', as `keyring set service user` was told")
        for field in ("default_max_output", "max_in_flight"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be 1 or more, not {getattr(self, field)}")
        if self.background and self.wire != "openai-responses":
            raise ValueError(f"background needs wire openai-responses, not {self.wire}")
        if self.proxy is not None and not self.proxy.startswith(("http://", "https://", "socks5://", "socks5h://")):
            raise ValueError("proxy must be an http://, https://, socks5:// or socks5h:// URL")
        for field in ("version", "organization", "project", "workspace"):
            _check_value(field, getattr(self, field) or "")
        for name, value in self.headers.items():
            if name.lower() in _SECRET_HEADERS:
                raise ValueError(
                    f"headers may not hold {name!r}: a key comes from key_env, key_file or key_keyring, never from the configuration"
                )
            if (
                name.lower() in _FRAMING_HEADERS
                or not name.replace("-", "").replace("_", "").isalnum()
                or not name.isascii()
            ):
                raise ValueError(f"headers may not hold {name!r}")
            _check_value(f"headers.{name}", value)

    def key_places(self) -> list[str]:
        """Return in words where the key is looked for, in that order."""
        told = [f"environment variable {self.key_env}"] if self.key_env else []
        told += [f"file {self.key_file}"] if self.key_file else []
        return told + ([f"keyring entry {self.key_keyring}"] if self.key_keyring else [])

    def __repr__(self) -> str:
        # A proxy's URL may hold a password; everything else here is fit to be seen.
        proxy = (
            None
            if self.proxy is None
            else f"{self.proxy.partition('://')[0]}://{self.proxy.rpartition('@')[2].rpartition('://')[2]}"
        )
        return redact(
            f"ProviderSettings(name={self.name!r}, wire={self.wire!r}, base_url={self.base_url!r}, proxy={proxy!r})"
        )


def _check_value(field: str, value: str) -> None:
    if not value.isascii() or (value and not value.isprintable()):
        raise ValueError(f"{field} must be printable ASCII, as HTTP headers are")
