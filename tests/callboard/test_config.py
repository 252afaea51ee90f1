"""Configuration: precedence, every error names its key, no secrets, and what a child process is handed."""

import subprocess
import sys
from pathlib import Path

import pytest

from callboard.actors.providers.settings import ProviderSettings
from callboard.actors.settings import route
from callboard.cli.settings_table import MEANINGS, markdown
from callboard.config import (
    AUTO,
    Config,
    ConfigError,
    config_from_json,
    database_url,
    load_config,
    scalar_settings,
    unknown_variables,
)
from callboard.config_checks import check_model

ROOT = Path(__file__).parents[2]


def written(tmp_path, text):
    file = tmp_path / "callboard.toml"
    file.write_text(text)
    return file


def refused(tmp_path, text, **kwargs) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text), env={}, **kwargs)
    return caught.value


def test_nothing_configured_runs_the_simulator_and_spends_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(env={})
    assert config == Config()
    found = route(config, None)
    assert (found.provider, found.name) == ("simulator", "extract")
    assert found.price is not None
    assert (found.price.input, found.price.output) == (0, 0)
    assert config.providers["simulator"].base_url == AUTO
    assert {name: p.key_env for name, p in config.providers.items() if p.key_env} == {
        "openai": "OPENAI_API_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "gemini": "GEMINI_API_KEY",
    }


@pytest.mark.parametrize(
    ("option", "variable", "line", "expected"),
    [(9, "8", "7", 9), (None, "8", "7", 8), (None, None, "7", 7), (None, "", "7", 7), (None, None, None, 16)],
)
def test_option_then_environment_then_file_then_default(tmp_path, option, variable, line, expected):
    file = written(tmp_path, "" if line is None else f"[runners]\nmax = {line}\n")
    env = {} if variable is None else {"CALLBOARD_RUNNERS_MAX": variable}
    assert load_config(file, env=env, overrides={"runners.max": option}).runners.max == expected


def test_every_setting_resolves_by_itself(tmp_path):
    file = written(tmp_path, '[runners]\nmin = 2\nidle_timeout = 5\n[providers.openai]\norganization = "org-1"\n')
    config = load_config(file, env={"CALLBOARD_RUNNERS_MAX": "3"})
    assert (config.runners.min, config.runners.max, config.runners.idle_timeout) == (2, 3, 5.0)
    assert config.providers["openai"].base_url == "https://api.openai.com/v1"
    assert config.providers["openai"].organization == "org-1"


def test_the_file_is_found_by_option_by_variable_and_in_the_current_directory(tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, model in ((here, "openai:a"), (there, "openai:b")):
        folder.mkdir()
        (folder / "callboard.toml").write_text(f'default_model = "{model}"')
    monkeypatch.chdir(here)
    assert load_config(env={}).default_model == "openai:a"
    assert load_config(env={"CALLBOARD_CONFIG": str(there / "callboard.toml")}).default_model == "openai:b"
    assert load_config(here / "callboard.toml", env={"CALLBOARD_CONFIG": "missing"}).default_model == "openai:a"
    with pytest.raises(ConfigError, match="missing: no such file"):
        load_config(env={"CALLBOARD_CONFIG": "missing"})


@pytest.mark.parametrize(
    ("text", "where", "says"),
    [
        ("databse = 'x'", "databse", "did you mean 'database'?"),
        ("[runners]\nceiling = 4", "runners.ceiling", "known here: min, max"),
        ("[runners]\nmax = 'four'", "runners.max", "expected a whole number from 1 to 1000, not 'four'"),
        ("[runners]\nmax = 0", "runners.max", "expected a whole number from 1 to 1000, not 0"),
        ("[runners]\nmax = 2.5", "runners.max", "expected a whole number"),
        ("runners = 4", "runners", "expected a table, not a number"),
        ("poll_interval = 0", "poll_interval", "expected a number above 0, not 0"),
        ("profile = 'duo'", "profile", '"solo" or "pool"'),
        ("synchronous = 'OFF'", "synchronous", '"FULL" or "NORMAL"'),
        ("providers = 3", "providers", "expected tables [providers.NAME]"),
        ("[providers.openai]\nbase_url = 3", "providers.openai.base_url", "expected a string, not 3"),
        ("[providers.openai]\nbase_url = 'ftp://x'", "providers.openai.base_url", "http"),
        ("[providers.openai]\nbase_url = 'http://example.com/v1'", "providers.openai.base_url", "https"),
        ("[providers.openai]\nwire = 'openai'", "providers.openai.wire", '"openai-chat" or "openai-responses"'),
        (
            "[providers.mine]\nwire = 'openai-chat'",
            "providers.mine.base_url",
            "base_url is missing: where the provider is",
        ),
        ("[providers.openai]\nbase_ulr = 'x'", "providers.openai.base_ulr", "did you mean 'base_url'?"),
        ("[providers.openai]\napi_key = 'x'", "providers.openai.api_key", "name the variable in key_env"),
        ("[providers.openai]\nname = 'other'", "providers.openai.name", "already given"),
        ("[providers.openai]\nmax_in_flight = 0", "providers.openai.max_in_flight", "1 or more"),
        ("[providers.openai.headers]\nAuthorization = 'x'", "providers.openai.headers", "key_env"),
        ("[models.fast]\nmodel = 'm'", "models.fast.provider", "missing"),
        ("[models.fast]\nprovider = 'opnai'\nmodel = 'm'", "models.fast.provider", "did you mean 'openai'?"),
        (
            "[models.fast]\nprovider = 'openai'\nmodel = 'm'\n[models.fast.price]\ninput = -1\noutput = 1",
            "models.fast.price.input",
            "at least 0",
        ),
        ("[models.fast]\nprovider = 'openai'\nmodel = 'm'\nprice = 3", "models.fast.price", "expected a table"),
        ("[limits.fast]\nconcurrency = 3", "limits.fast", "by provider"),
        ("[handlers]\nresize = 'images.resize'", "handlers.resize", '"package.module:function"'),
        ("[handlers]\nresize = 3", "handlers", "resize"),
        ("default_model = 'opnai:gpt'", "default_model", "did you mean 'openai:'?"),
        ("default_model = 'fast'", "default_model", "known: simulator:extract"),
        ("[runners]\nmin = 9\nmax = 3", "runners.min", "more than runners.max"),
    ],
)
def test_an_error_names_file_and_key_and_says_what_is_allowed(tmp_path, text, where, says):
    error = refused(tmp_path, text)
    assert error.where == f"{tmp_path / 'callboard.toml'}: {where}"
    assert says in f"{error.problem} {error.hint}"


def test_a_variable_is_named_by_its_name():
    with pytest.raises(ConfigError) as caught:
        load_config(env={"CALLBOARD_RUNNERS_MAX": "many"})
    assert str(caught.value).startswith("CALLBOARD_RUNNERS_MAX: expected a whole number")


@pytest.mark.parametrize("text", ["database = callboard.db", "[runners", "a = 1\na = 2"])
def test_a_syntax_error_is_placed(tmp_path, text):
    error = refused(tmp_path, text)
    assert "not valid TOML" in str(error)
    assert "at line" in str(error) or "end of document" in str(error)


def test_a_file_that_is_not_text_or_not_a_file(tmp_path):
    (tmp_path / "callboard.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "callboard.toml", env={})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, env={})


@pytest.mark.parametrize(
    "line",
    [
        "[providers.openai]\nkey_env = '{}'",
        "[providers.openai]\norganization = '{}'",
        "[providers.openai.headers]\nx-extra = 'Bearer {}'",
        "[providers.openai]\nunsupported = ['{}']",
        "nonsense = '{}'",
    ],
)
@pytest.mark.parametrize(
    "key", ["sk-proj-abcdefghijklmnop", "sk-ant-api03-abcdefghijkl", "AIzaSyAbcdefghijklmnopqrstuvwxyz"]
)
def test_a_pasted_key_is_refused_and_not_repeated(tmp_path, line, key):
    error = refused(tmp_path, line.format(key))
    assert "key_env" in f"{error.hint}"
    assert key not in f"{error}{error.hint}"


def test_solo_is_one_runner_whatever_the_pool(tmp_path):
    config = load_config(
        written(tmp_path, "[runners]\nmin = 2\nmax = 8\nidle_timeout = 3"), env={"CALLBOARD_PROFILE": "solo"}
    )
    assert (config.runners.min, config.runners.max, config.runners.idle_timeout) == (1, 1, 3.0)
    assert Config(profile="solo").runners.max == 1
    error = refused(tmp_path, "profile = 'solo'", overrides={"runners.max": 4})
    assert error.hint == "ask for --profile pool as well"


def test_a_child_is_handed_the_same_configuration(tmp_path):
    config = load_config(
        written(
            tmp_path,
            "profile = 'solo'\n[models.fast]\nprovider = 'openai'\nmodel = 'm'\nprice = {input = 1, output = 2}\n"
            "[limits.openai]\nconcurrency = 3\n[providers.local]\nwire = 'openai-chat'\nbase_url = 'http://127.0.0.1:1/v1'\nunsupported = ['seed']",
        ),
        env={},
    )
    line = config.to_json()
    assert "\n" not in line
    assert config_from_json(line) == config
    assert config_from_json(line, overrides={"database": "other.db"}).database == "sqlite:///other.db"
    with pytest.raises(ConfigError, match="on stdin: not JSON"):
        config_from_json("")
    with pytest.raises(ConfigError, match="on stdin: expected a table"):
        config_from_json("[]")
    with pytest.raises(ConfigError, match="stdin: databse: unknown key"):
        config_from_json('{"databse": ""}')


def test_a_database_may_be_a_path():
    assert database_url("a/b.db") == "sqlite:///a/b.db"
    assert database_url("/a/b.db") == "sqlite:////a/b.db"
    assert database_url("sqlite:///b.db") == "sqlite:///b.db"
    assert load_config(env={"CALLBOARD_DATABASE": "x.db"}).database == "sqlite:///x.db"


def test_check_model():
    check_model(Config(), "openai:gpt-5", "--model")
    with pytest.raises(ConfigError) as caught:
        check_model(Config(), "antropic:claude", "--model")
    assert caught.value.hint == "did you mean 'anthropic:'?"


def test_misspelled_variables_are_found():
    assert unknown_variables(
        {"CALLBOARD_DATABSE": "x", "CALLBOARD_DATABASE": "y", "CALLBOARD_DEBUG": "1", "PATH": ""}
    ) == ["CALLBOARD_DATABSE"]


def test_the_documented_table_is_the_settings_own():
    assert {setting.key for setting in scalar_settings()} == set(MEANINGS)
    assert markdown() in (ROOT / "docs" / "configuration.md").read_text()


def test_importing_the_configuration_loads_nothing_heavy():
    code = (
        "import sys, callboard.config; callboard.config.load_config(env={});"
        "print([m for m in ('sqlalchemy','httpx','rich','click','alembic','pykka','difflib','email','multiprocessing','pydantic') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_groups_of_runners_must_fit_into_the_pool(tmp_path):
    path = tmp_path / "groups.toml"
    text = (
        '[claims]\ntags = ["eu"]\n[groups.gpu]\nrunners = 3\ntags = ["gpu"]\ntypes = ["ocr"]\n[runners]\nmax = {most}\n'
    )
    path.write_text(text.replace("{most}", "3"))
    config = load_config(path, env={})
    assert config.groups["gpu"].tags == ("gpu",)
    assert config.claims.tags == ("eu",)
    path.write_text(text.replace("{most}", "2"))
    with pytest.raises(ConfigError, match=r"groups: the groups have 3 runners together, more than runners\.max"):
        load_config(path, env={})
    path.write_text(text.replace("{most}", "3").replace("runners = 3", "runners = 0"))
    with pytest.raises(ConfigError, match=r"groups\.gpu\.runners: expected a whole number of at least 1"):
        load_config(path, env={})


def test_a_configuration_built_in_code_without_the_simulator_has_no_default_model_of_ours():
    mine = ProviderSettings(name="mine", wire="openai-chat", base_url="https://models.example/v1")
    config = Config(providers={"mine": mine})
    assert config.default_model is None
    assert config_from_json(config.to_json()).default_model is None  # so a child process takes it as it is
    assert Config().default_model == "simulator:extract"
