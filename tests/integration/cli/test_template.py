"""`nexus template`: declared, built, used, refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.cli.console import Console

CONFIG = '[templates.science]\nimage = "science:1"\nlimits = {memory_mb = 2048}\nenv = {TOKEN = "canary-9c1e"}\n'


@pytest.fixture
def configured(nexus: Console) -> Console:
    file = nexus.folder / "config.toml"
    file.write_text(CONFIG)
    nexus.env["NEXUS_CONFIG"] = str(file)
    return nexus


def test_declared_templates_are_listed_and_shown_without_secrets(configured: Console) -> None:
    listed = configured.ok("template", "list", "--json").json["templates"]
    assert [template["name"] for template in listed] == ["default", "science"]
    shown = configured.ok("template", "show", "science", "--json").json
    assert (shown["image"], shown["limits"]["memory_mb"], shown["env_names"]) == ("science:1", 2048, ["TOKEN"])
    for command in (["list"], ["show", "science"]):
        assert "canary-9c1e" not in configured.ok("template", *command).text
    assert configured("template", "show", "none").status == 2


def test_a_template_brings_its_limits(configured: Console) -> None:
    configured.ok("sandbox", "create", "box", "--template", "science")
    assert configured.ok("sandbox", "status", "box", "--json").json["limits"]["memory_mb"] == 2048


def test_a_local_environment_is_built_and_found(nexus: Console, tmp_path: Path) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("")
    built = nexus.ok("template", "build", "mine", "--provider", "local", "-f", str(requirements), "--json").json
    assert Path(built["result"]).is_file()
    assert nexus.ok("template", "show", "mine", "--json").json["python"] == built["result"]
    requirements.write_text("./no-such-package-here\n")
    failed = nexus("template", "build", "mine", "--provider", "local", "-f", str(requirements))
    assert failed.status == 1
    assert "could not be built" in failed.err
    assert Path(built["result"]).is_file(), "the one that worked is put back"


def test_the_local_provider_knows_only_what_was_declared(nexus: Console) -> None:
    nexus.env["NEXUS_SANDBOX_PROVIDER"] = "local"
    head = nexus.head()
    refused = nexus("sandbox", "create", "box", "--template", "nope")
    assert refused.status == 2
    assert "has no template 'nope'" in refused.err
    assert nexus.head() == head


@pytest.mark.parametrize(
    "wrong",
    [
        ["build", "x", "--provider", "local"],
        ["build", "x", "--provider", "local", "-f", "/no/such/file"],
        ["build", "-v", "--provider", "local"],
        ["build", "a b", "--provider", "local", "-f", "/dev/null"],
        ["build", "x", "--provider", "local", "-f", "/dev/null", "--context", "."],
        ["build", "x", "--provider", "nope"],
    ],
)
def test_wrong_words(nexus: Console, wrong: list[str]) -> None:
    assert nexus("template", *wrong).status == 2
