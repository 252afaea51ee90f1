"""What the environment of the process may not do to calls: send them elsewhere, trust others, add a password. With the real resolver and real TLS."""

import asyncio
import json
import shutil
import ssl
import subprocess

import pytest

from callboard.actors.providers import http_client
from callboard.actors.providers.engine import Failed, Finished
from callboard.actors.providers.model import ErrorClass, Message, Request
from callboard.actors.providers.network import CheckedNetwork
from callboard.actors.providers.urls import UnsafeURLError

WHOLE = Request(model="m", messages=(Message("user", "hi"),), stream=False)
BODY = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "ok"}}]}).encode()


async def ok(exchange):
    await exchange.reply(BODY, headers=["content-type: application/json"])


@pytest.mark.parametrize(
    "host", ["2852039166", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518", "::ffff:a9fe:a9fe"]
)
def test_an_unusual_notation_is_seen_through_when_it_is_connected_to(host):
    """The resolver reads all of these as 169.254.169.254. base_url refuses them too; this is what stands behind that."""

    async def connect():
        network = CheckedNetwork(allow_private=True)
        try:
            await network.connect_tcp(host, 80, timeout=5.0)
        finally:
            await network.close()

    with pytest.raises(UnsafeURLError, match="metadata"):
        asyncio.run(connect())


def test_a_netrc_adds_no_password(serve, start_engine, call, tmp_path, monkeypatch):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password planted\ndefault login me password planted\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    server = serve(ok)
    assert isinstance(call(start_engine(server.url, key_env=None), WHOLE)[0], Finished)
    assert "authorization" not in {name.lower() for name in server.seen[0].headers}


def test_no_authority_of_the_environment_is_trusted(serve, start_engine, call, tmp_path, monkeypatch):
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command to make a certificate")
    key, certificate = tmp_path / "key", tmp_path / "crt"
    made = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run(["openssl", *made, *named, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(certificate))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    # A context made under this environment, not the one that this process may have made before.
    monkeypatch.setattr(http_client, "shared_tls_context", http_client.shared_tls_context.__wrapped__)
    server = serve(ok, tls=context)
    end, _ = call(start_engine(f"https://localhost:{server.port}/v1"), WHOLE)
    assert isinstance(end, Failed)
    assert (end.error.kind, end.error.sent) == (ErrorClass.CONNECT, False)
    assert "certificate" in end.error.message.lower()
