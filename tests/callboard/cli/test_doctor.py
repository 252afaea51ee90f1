"""Doctor: each fault is found, said with what to do, and does not hide the next; keys are never shown."""

import json

import pytest

from callboard.simulator import Simulator, SimulatorConfig

KEY = "an-invented-key-123456"
WIRES = ("openai-chat", "anthropic-messages", "gemini", "ollama")


def verdicts(result):
    return {(f["area"], f["verdict"]): f for f in json.loads(result.out)["findings"]}


def test_nothing_configured_is_fine(cli):
    result = cli("doctor", "--offline")
    assert result.code == 0
    assert "✗" not in result.out
    assert "the first worker, add or map creates it" in result.out
    assert "provider ollama: not asked; needed only for models of ollama" in result.out


@pytest.fixture
def guarded(here, monkeypatch):
    """A provider that wants a key, and is the default model's."""
    monkeypatch.setenv("LOCAL_KEY", KEY)
    with Simulator(SimulatorConfig(keys=(KEY,))) as simulator:
        for wire in WIRES:
            url = f"{simulator.url}/v1" if wire.startswith("openai") else simulator.url
            (here / f"{wire}.toml").write_text(
                f'default_model = "local:m"\n[providers.local]\nwire = "{wire}"\nbase_url = "{url}"\nkey_env = "LOCAL_KEY"\n'
            )
        yield simulator


@pytest.mark.parametrize("wire", WIRES)
def test_a_good_key_is_accepted_and_nothing_is_paid(cli, guarded, wire):
    result = cli("doctor", "--config", f"{wire}.toml", "--json")
    assert result.code == 0
    assert "answers, with a key from $LOCAL_KEY" in verdicts(result)["provider local", "ok"]["what"]
    assert KEY not in result.out + result.err
    assert guarded.stats()["requests"] == 0


@pytest.mark.parametrize("wire", WIRES)
def test_a_bad_key(cli, guarded, monkeypatch, wire):
    monkeypatch.setenv("LOCAL_KEY", "another-invented-key")
    result = cli("doctor", "--config", f"{wire}.toml", "--json")
    assert result.code == 1
    assert (
        f"refuses the key (HTTP {400 if wire == 'gemini' else 401})"
        in verdicts(result)["provider local", "wrong"]["what"]
    )
    assert "another-invented-key" not in result.out + result.err


def test_a_missing_key_and_an_unreachable_provider(cli, guarded, monkeypatch):
    monkeypatch.delenv("LOCAL_KEY")
    result = cli("doctor", "--config", "openai-chat.toml", "--json")
    assert result.code == 1
    assert "LOCAL_KEY is not set" in verdicts(result)["provider local", "wrong"]["what"]
    monkeypatch.setenv("LOCAL_KEY", KEY)
    guarded.stop()
    result = cli("doctor", "--config", "openai-chat.toml", "--json")
    assert "cannot be reached" in verdicts(result)["provider local", "wrong"]["what"]
    assert KEY not in result.out


def test_one_fault_does_not_hide_another(cli, here, monkeypatch):
    monkeypatch.setenv("CALLBOARD_DATABSE", "x")
    (here / "callboard.toml").write_text('database = "none/x.db"\n[handlers]\nresize = "no.such:thing"\n')
    result = cli("doctor", "--offline", "--json")
    assert result.code == 1
    found = verdicts(result)
    assert "CALLBOARD_DATABSE" in found["configuration", "warning"]["what"]
    assert "cannot import" in found["handlers", "wrong"]["what"]
    assert "does not exist" in found["database", "wrong"]["what"]
    text = cli("doctor", "--offline")
    assert text.out.count("✗") == 2
    assert "2 things to put right" in text.err


def test_a_bad_configuration(cli, here):
    (here / "callboard.toml").write_text("[runners]\nmax = 0\n")
    result = cli("doctor", "--json")
    assert result.code == 1
    assert "runners.max" in verdicts(result)["configuration", "wrong"]["what"]
    other = cli("doctor", "--json", "--offline", "--database", "callboard.db")
    assert ("database", "ok") in verdicts(other)


def test_a_sound_database_and_one_others_can_read(cli, here):
    cli("add", "chat", "--data", "{}")
    assert "sound and writable" in cli("doctor", "--offline").out
    (here / "callboard.db").chmod(0o644)
    assert "chmod 600" in cli("doctor", "--offline").out


def test_a_model_that_a_budget_would_refuse(cli, here):
    file = here / "callboard.toml"
    models = '[models.home]\nprovider = "ollama"\nmodel = "m"\n[models.free]\nprovider = "ollama"\nmodel = "m"\nprice = { input = 0, output = 0 }\n'
    file.write_text(models + '[budgets.daily]\nscope = "day"\ndollars = 5\n')
    told = cli("doctor", "--offline").out
    assert "! prices: not known for home; the budget 'daily' is in dollars" in told
    file.write_text(file.read_text() + "assume = 0.01\n")
    assert "prices" not in cli("doctor", "--offline").out
