import ipaddress

import msgspec
import pytest

from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.providers.urls import UnsafeURLError, check_base_url, refusal


@pytest.mark.parametrize(
    ("url", "allow_private"),
    [
        ("https://api.openai.com/v1", False),
        ("https://api.openai.com/v1/", False),
        ("http://localhost:8080/v1", False),
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
        ("http://10.0.0.5:8000/v1", True),
        ("http://gpu-box:8000/v1", True),
        ("https://8.8.8.8", False),
        ("https://[2606:4700::1]", False),
        ("https://my_box-2.example.org", False),
    ],
)
def test_accepted(url, allow_private):
    assert check_base_url(url, allow_private=allow_private) == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "allow_private", "why"),
    [
        ("http://api.openai.com/v1", False, "clear text"),
        ("ftp://api.openai.com", False, "http or https"),
        ("api.openai.com/v1", False, "http or https"),
        ("https://", False, "http or https"),
        ("https://user:pass@host/v1", False, "user or password"),
        ("https://host/v1?key=x", False, "path only"),
        ("https://host/v1#x", False, "path only"),
        ("https://host:99999/v1", False, "not a URL"),
        ("https://ho st/v1", False, "path only"),
        ("https://10.0.0.5/v1", False, "not a public address"),
        ("https://100.64.0.1/v1", False, "not a public address"),
        ("https://169.254.169.254/latest", True, "metadata"),
        ("http://100.100.100.200", True, "metadata"),
        ("http://168.63.129.16", True, "metadata"),
        ("http://[fd00:ec2::254]", True, "metadata"),
        ("http://[fe80::1]", True, "link-local"),
        ("http://[::ffff:169.254.169.254]", True, "metadata"),
        ("http://[64:ff9b::a9fe:a9fe]", True, "metadata"),
        ("http://0.0.0.0:80", True, "unspecified"),
        ("http://224.0.0.1", True, "multicast"),
        ("https://2852039166", True, "unusual notation"),
        ("https://0xA9FEA9FE", True, "unusual notation"),
        ("https://0251.0376.0251.0376", True, "unusual notation"),
        ("https://169.254.43518", True, "unusual notation"),
        ("https://169.254.169.254.", True, "unusual notation"),
        ("https://api.openai.com\\.example.org", False, "no name of a host"),
        ("https://api.openai.com%2eexample.org", False, "no name of a host"),
        ("http://[::a9fe:a9fe]", True, "metadata"),
        ("http://[2002:a9fe:a9fe::1]", True, "metadata"),
        ("http://[64:ff9b:1::a9fe:a9fe]", True, "metadata"),
        ("http://[::ffff:0:169.254.169.254]", True, "metadata"),
        ("https://[::7f00:1]", False, "loopback"),
        ("https://[fec0::1]", False, "not a public address"),
        ("https://[5f00::1]", False, "not a public address"),
    ],
)
def test_refused(url, allow_private, why):
    with pytest.raises(UnsafeURLError, match=why) as raised:
        check_base_url(url, allow_private=allow_private)
    assert "pass" not in str(raised.value).replace("password", "")


@pytest.mark.parametrize(
    ("address", "host", "allow_private", "refused"),
    [
        ("93.184.215.14", "example.org", False, False),
        ("2606:2800:21f:cb07::1", "example.org", False, False),
        ("127.0.0.1", "example.org", False, True),
        ("::1", "example.org", False, True),
        ("127.0.0.1", "localhost", False, False),
        ("127.0.0.1", "gpu-box", True, False),
        ("192.168.1.2", "example.org", False, True),
        ("192.168.1.2", "localhost", False, True),
        ("192.168.1.2", "example.org", True, False),
        ("fd12::1", "example.org", False, True),
        ("::ffff:10.0.0.1", "example.org", False, True),
        ("2002:a00:1::1", "example.org", False, True),
        ("169.254.1.1", "example.org", True, True),
    ],
)
def test_the_address_behind_a_name(address, host, allow_private, refused):
    assert bool(refusal(ipaddress.ip_address(address), host=host, allow_private=allow_private)) is refused


GOOD = {"name": "p", "wire": "openai-chat", "base_url": "https://api.openai.com/v1"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"base_url": "http://api.openai.com"}, "clear text"),
        ({"headers": {"Authorization": "Bearer x"}}, "key_env, key_file or key_keyring"),
        ({"headers": {"X-Api-Key": "x"}}, "key_env, key_file or key_keyring"),
        ({"headers": {"Cookie": "x"}}, "key_env, key_file or key_keyring"),
        ({"headers": {"Host": "x"}}, "may not hold 'Host'"),
        ({"headers": {"a b": "x"}}, "may not hold 'a b'"),
        ({"headers": {"x-team": "a\r\nx-api-key: b"}}, "printable ASCII"),
        ({"version": "2023\n"}, "version must be printable"),
        ({"max_in_flight": 0}, "max_in_flight must be 1 or more"),
        ({"default_max_output": 0}, "default_max_output must be 1 or more"),
        ({"proxy": "proxy:3128"}, "proxy must be"),
        ({"wire": "smoke-signals"}, "wire"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_settings_are_checked(change, why):
    with pytest.raises(msgspec.ValidationError, match=why):
        msgspec.convert({**GOOD, **change}, ProviderSettings)


def test_settings_show_no_proxy_password():
    settings = msgspec.convert({**GOOD, "proxy": "http://user:hunter2@proxy:3128"}, ProviderSettings)
    assert "hunter2" not in repr(settings)
    assert "http://proxy:3128" in repr(settings)
