"""Settings: where each value comes from, and what is said when one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus import config
from nexus.domain.errors import ConfigurationError


def settings(tmp_path: Path, text: str = "", **more: object) -> config.Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    env = more.pop("env", {})
    assert isinstance(env, dict)
    return config.load(env=env, file=file, **more)


def test_argument_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    text = 'user = "file"\ntenant = "file"\nagent = "file"\n'
    env = {"NEXUS_USER": "env", "NEXUS_TENANT": "env"}
    found = settings(tmp_path, text, env=env, user="argument")
    assert (found.user, found.tenant, found.agent, found.max_ttl_minutes) == ("argument", "env", "file", 1440)
    assert [found.sources[name].split()[0] for name in ("user", "tenant", "agent", "max_ttl_minutes")] == [
        "argument",
        "environment",
        "file",
        "default",
    ]


def test_the_providers_own_variables_count(tmp_path: Path) -> None:
    found = settings(tmp_path, env={"E2B_API_KEY": "k", "DOCKER_HOST": "unix:///x", "MODAL_TOKEN_ID": "i"})
    assert (found.e2b_api_key, found.docker_host, found.modal_token_id) == ("k", "unix:///x", "i")
    assert found.sources["e2b_api_key"] == "environment (E2B_API_KEY)"


def test_templates(tmp_path: Path) -> None:
    text = '[templates.science]\nimage = "science:1"\npython = "/opt/p"\nlimits = {memory_mb = 2048}\nenv = {A = "1"}\n'
    found = settings(tmp_path, text)
    template = found.template("science")
    assert (template.image, template.python, template.limits.memory_mb) == ("science:1", "/opt/p", 2048)
    assert template.env == {"A": "1"}
    assert found.template(None).name == "default"
    assert found.template("other:2").image == "other:2"


def test_prices(tmp_path: Path) -> None:
    found = settings(tmp_path, '[prices]\nlocal = 0\n"my.cloud" = 0.125\n')
    assert found.prices == {"local": 0.0, "my.cloud": 0.125}
    assert found.paused_prices == {}
    assert settings(tmp_path, "[paused_prices]\nlocal = 0.5\n").paused_prices == {"local": 0.5}
    assert settings(tmp_path).prices == {}


@pytest.mark.parametrize(
    ("text", "env", "named"),
    [
        ("prices = 3", {}, "prices"),
        ("templates = 3", {}, "templates"),
        ("[prices]\ne2b = '1'", {}, "'e2b'"),
        ("[prices]\ne2b = true", {}, "'e2b'"),
        ("[paused_prices]\ne2b = -1", {}, "'e2b'"),
        ("[prices]\ne2b = -0.1", {}, "'e2b'"),
        ("[prices]\ne2b = nan", {}, "'e2b'"),
        ("[prices]\ne2b = inf", {}, "'e2b'"),
        ("[prices]\n'-v' = 1", {}, "'-v'"),
        ("user = 3", {}, "user"),
        ("max_ttl_minutes = true", {}, "max_ttl_minutes"),
        ("nonsense = 1", {}, "nonsense"),
        ("= broken", {}, "config.toml"),
        ("[templates.x]\nsize = 3", {}, "'x'"),
        ("[templates.x]\nlimits = {speed = 3}", {}, "'x'"),
        ("[templates]\n'-v' = {}", {}, "'-v'"),
        ("", {"NEXUS_MAX_TTL_MINUTES": "ten"}, "NEXUS_MAX_TTL_MINUTES"),
        ("", {"NEXUS_MAX_TTL_MINUTES": "٣"}, "NEXUS_MAX_TTL_MINUTES"),
        ("", {"NEXUS_MAX_TTL_MINUTES": "0"}, "max_ttl_minutes"),
        ("", {"NEXUS_ADMIN": "perhaps"}, "NEXUS_ADMIN"),
        ("", {"NEXUS_USER": "a\x1b[31mb"}, "user"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, env: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        settings(tmp_path, text, env=env)


def test_a_file_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no configuration file"):
        config.load(env={"NEXUS_CONFIG": str(tmp_path / "none.toml")})


def test_without_a_home_the_user_still_has_a_name(tmp_path: Path) -> None:
    assert settings(tmp_path, data_dir=tmp_path).user
