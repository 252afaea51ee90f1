import copy
import json
import pickle

import pytest

from callboard.actors.providers.keys import KeyUnavailableError, Secret, redact, resolve_key

VALUE = "sk-ant-very-secret-0123456789"


def test_a_secret_shows_itself_only_when_asked():
    secret = Secret(VALUE)
    assert secret.reveal() == VALUE
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", repr({"key": secret}), "%s" % secret):  # noqa: UP031 - logging formats so
        assert VALUE not in shown
        assert "***" in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError) as raised:
            leak(secret)
        assert VALUE not in str(raised.value)


def test_environment_wins_over_the_file(tmp_path):
    path = tmp_path / "key"
    path.write_text("from-file\n")
    path.chmod(0o600)
    assert resolve_key("p", env="K", key_file=str(path), environ={"K": " from-env\n"}).reveal() == "from-env"
    assert resolve_key("p", env="K", key_file=str(path), environ={}).reveal() == "from-file"
    assert resolve_key("p", key_file=str(path), environ={}).reveal() == "from-file"
    assert resolve_key("p", environ={}) is None


def test_a_rotated_file_is_read_anew(tmp_path):
    path = tmp_path / "key"
    path.touch(0o600)
    for value in ("first", "second"):
        path.write_text(value)
        assert resolve_key("p", key_file=str(path), environ={}).reveal() == value


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "key"
    path.write_text(VALUE)
    path.chmod(mode)
    with pytest.raises(KeyUnavailableError, match=rf"'p'.*{oct(mode)}.*chmod 600") as raised:
        resolve_key("p", key_file=str(path), environ={})
    assert VALUE not in str(raised.value)


def test_what_cannot_be_had_is_named(tmp_path):
    with pytest.raises(KeyUnavailableError, match="provider 'p': environment variable NAME is not set"):
        resolve_key("p", env="NAME", environ={"NAME": "  "})
    with pytest.raises(KeyUnavailableError, match=r"cannot read key file .*none: No such file"):
        resolve_key("p", key_file=str(tmp_path / "none"), environ={})
    with pytest.raises(KeyUnavailableError, match="cannot read key file"):
        resolve_key("p", key_file=str(tmp_path), environ={})
    empty = tmp_path / "empty"
    empty.touch(0o600)
    with pytest.raises(KeyUnavailableError, match="is empty"):
        resolve_key("p", key_file=str(empty), environ={})


@pytest.mark.parametrize("value", ["a\nb", "a b", "a\x00b", "k\u00e9y", "a\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_here(value):
    with pytest.raises(KeyUnavailableError) as raised:
        resolve_key("p", env="K", environ={"K": value})
    assert value not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "kept", "gone"),
    [
        ("Incorrect API key provided: sk-proj-abc***wxyz. See", "Incorrect API key provided: ", "wxyz"),
        ("key sk-ant-api03-AbCd_ef-0123 bad", "key sk-*** bad", "AbCd"),
        ("use AIzaSyA0123456789abcdefghij now", " now", "SyA0123"),
        ("Authorization: Bearer abc.def-123", "Authorization", "abc.def"),
        ("header authorization: xyz123 sent", " sent", "xyz123"),
        ("{'x-api-key': 'abc123', 'b': 1}", "'b': 1", "abc123"),
        ("(b'x-goog-api-key', b'abc123')", "x-goog-api-key", "abc123"),
        ("GET /v1?key=abc123&alt=sse", "&alt=sse", "abc123"),
        ("https://h/?api_key=abc123 failed", " failed", "abc123"),
        ("my own secret pa55word!", "my own secret ", "pa55word!"),
    ],
)
def test_redaction(text, kept, gone):
    shown = redact(text, [Secret("pa55word!")])
    assert kept in shown
    assert gone not in shown


@pytest.mark.parametrize(
    "text",
    [
        "a task-force and a risk-averse disk-usage",
        "keys are listed; token count 12",
        "max_tokens is 5",
        "bearers of news",
    ],
)
def test_plain_words_stay(text):
    assert redact(text) == text
