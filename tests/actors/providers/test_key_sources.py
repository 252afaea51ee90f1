"""Keys from the keyring: a real backend, registered the way that keyring documents, and calls that go over real connections."""

import json
import subprocess
import sys

import pytest

from callboard.actors.providers import key_sources
from callboard.actors.providers.engine import Finished
from callboard.actors.providers.key_sources import key_now, source_now
from callboard.actors.providers.keys import KeyUnavailableError
from callboard.actors.providers.model import Billed, ErrorClass, Message, Request, Scope
from callboard.actors.providers.settings import ProviderSettings

keyring = pytest.importorskip("keyring")
VALUE = "sk-in-the-keyring-0123456789"
WHOLE = Request(model="m", messages=(Message("user", "hi"),), stream=False)
BODY = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "ok"}}]}).encode()


@pytest.fixture
def ring():
    """The entries of a keyring, (service, user) to key, and what was asked of it."""
    entries, asked = {}, []

    class Backend(keyring.backend.KeyringBackend):
        priority = 1

        def get_password(self, service, username):
            asked.append((service, username))
            found = entries.get((service, username))
            if isinstance(found, Exception):
                raise found
            return found

        def set_password(self, service, username, password):
            entries[service, username] = password

        def delete_password(self, service, username):
            del entries[service, username]

    before = keyring.get_keyring()
    keyring.set_keyring(Backend())
    key_sources._kept.clear()
    yield entries, asked
    key_sources._kept.clear()
    keyring.set_keyring(before)


def settings(**more):
    return ProviderSettings(
        **{"name": "p", "wire": "openai-chat", "base_url": "https://x.example", "key_keyring": "callboard:me", **more}
    )


async def ok(exchange):
    await exchange.reply(BODY, headers=["content-type: application/json"])


def test_a_call_is_sent_with_the_key_of_the_keyring(ring, serve, start_engine, call):
    _, asked = ring
    keyring.set_password("callboard", "me", VALUE)
    server = serve(ok)
    engine = start_engine(server.url, key_env=None, key_keyring="callboard:me")
    for _ in range(3):
        assert isinstance(call(engine, WHOLE)[0], Finished)
    assert {exchange.headers["authorization"] for exchange in server.seen} == {f"Bearer {VALUE}"}
    assert asked == [("callboard", "me")], "a question may be slow: it is asked once a minute"


def test_a_changed_key_is_seen_when_the_old_one_has_grown_old(ring, monkeypatch):
    monkeypatch.setattr(key_sources, "KEPT_FOR", 0.0)
    for value in ("first", "second"):
        keyring.set_password("callboard", "me", value)
        assert key_now(settings(), {}).reveal() == value


def test_the_variable_goes_before_the_keyring(ring):
    keyring.set_password("callboard", "me", VALUE)
    both = settings(key_env="K")
    assert key_now(both, {"K": "from-env"}).reveal() == "from-env"
    assert source_now(both, {"K": "from-env"}) == "environment variable K"
    assert key_now(both, {}).reveal() == VALUE
    assert source_now(both, {}) == "keyring entry callboard:me"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (None, "no entry callboard:me; run: keyring set callboard me"),
        (RuntimeError(f"locked, holding {VALUE}"), r"failed \(RuntimeError\) when asked for callboard:me"),
        ("", "keyring entry callboard:me is empty"),
        (f"{VALUE}\nx", "characters that no key has"),
    ],
)
def test_a_key_that_cannot_be_had_is_said_and_not_shown(ring, serve, start_engine, call, found, says):
    ring[0]["callboard", "me"] = found
    with pytest.raises(KeyUnavailableError, match=says) as raised:
        key_now(settings(), {})
    assert VALUE not in str(raised.value)
    server = serve(ok)
    end, _ = call(start_engine(server.url, key_env=None, key_keyring="callboard:me"), WHOLE)
    assert (end.error.kind, end.error.scope, end.error.billed) == (ErrorClass.AUTH, Scope.CREDENTIAL, Billed.NO)
    assert not end.error.sent
    assert server.seen == []


def test_without_its_package_the_extra_is_named(ring, monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(KeyUnavailableError, match=r"pip install 'callboard\[keyring\]'"):
        key_now(settings(), {})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"key_keyring": "callboard"}, "service:user"),
        ({"key_keyring": ":me"}, "service:user"),
        ({"key_file": "~/key"}, "name one of them"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, says):
    with pytest.raises(ValueError, match=says):
        settings(**fields)


def test_it_is_loaded_only_when_it_is_asked():
    code = "import sys, callboard.actors.providers.engine, callboard.actors.providers.call; print('keyring' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
