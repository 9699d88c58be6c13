"""`nexus reconcile`, `worker`, `projections`, `doctor`, `providers`, `config`, `completion`, `--version`."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import nexus as package
from nexus.config import SETTINGS
from tests.integration.cli.console import PATIENCE, Console, Result, reading


# --- reconcile and worker --------------------------------------------------------------------------------------------
def test_reconcile_says_what_it_did(nexus: Console) -> None:
    lost, kept = nexus.create("lost"), nexus.create("kept")
    assert nexus.ok("reconcile", env=nexus.operator).out == b""
    nexus.provider.cloud.vanish(lost)
    told = nexus.ok("reconcile", "--json", env=nexus.operator).json
    assert told == {
        "expired": [], "taken_over": [], "runs_lost": [], "lost": [lost], "drifted": [], "orphans": [], "pool": [],
        "bodies_erased": [], "problems": [],
    }  # fmt: skip
    assert nexus.ok("sandbox", "list", "--quiet").text.split() == [kept]


def test_on_the_embedded_store_its_user_is_its_operator(nexus: Console) -> None:
    nexus.create("box")
    nexus.ok("reconcile")
    nexus.ok("projections", "verify")


def test_reconcile_tells_of_what_it_could_not_do(nexus: Console) -> None:
    nexus.create("box")
    nexus.provider.cloud.fail("owned", "ProviderUnavailable", times=None)
    for command in (["reconcile"], ["worker", "--once"]):
        result = nexus(*command, env=nexus.operator)
        assert (result.status, result.err) == (1, "")
        assert result.text.startswith("Problem: provider scripted cannot list")


def test_a_worker_tells_of_a_round_that_failed_and_goes_on(nexus: Console) -> None:
    nexus.provider.cloud.vanish(nexus.create("lost"))
    worker = nexus.start("worker", "--interval", "1", "--json")
    try:
        assert worker.stdout is not None
        next(reading(worker.stdout))
        nexus.write("ALTER TABLE due RENAME TO due_gone")
        assert worker.stderr is not None
        assert json.loads(next(reading(worker.stderr)))["error"]["code"] == "round_failed"
        assert worker.poll() is None
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(PATIENCE) == 0
    finally:
        worker.kill()
        worker.communicate()


def test_one_round_of_a_worker(nexus: Console) -> None:
    lost = nexus.create("lost")
    nexus.provider.cloud.vanish(lost)
    assert nexus.ok("worker", "--once").text == f"Lost: {lost}\n"
    assert nexus.ok("worker", "--once", "--json").json["lost"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_worker_drains_when_it_is_told_to_end(nexus: Console, number: signal.Signals) -> None:
    lost = nexus.create("lost")
    nexus.provider.cloud.vanish(lost)
    worker = nexus.start("worker", "--interval", "1", "--json")
    try:
        assert worker.stdout is not None
        assert json.loads(next(reading(worker.stdout)))["lost"] == [lost]
        worker.send_signal(number)
        assert worker.wait(PATIENCE) == 0
        assert worker.stderr is not None
        assert worker.stderr.read() == b""
    finally:
        worker.kill()
        worker.communicate()


@pytest.mark.parametrize("wrong", ["0", "-1", "x", "1.5", "99999999"])
def test_a_workers_interval_is_checked(nexus: Console, wrong: str) -> None:
    assert nexus("worker", "--once", "--interval", wrong).status == 2


# --- projections -----------------------------------------------------------------------------------------------------
NAMES = ["sandboxes", "due", "pool", "executions"]


def test_projections_status(nexus: Console) -> None:
    nexus.create("box")
    found = nexus.ok("projections", "status", "--json").json["projections"]
    assert [one["name"] for one in found] == NAMES
    assert {one["head"] for one in found} == {nexus.head()}
    assert "with the event" in nexus.ok("projections", "status").text


def test_projections_rebuild_what_was_broken(nexus: Console) -> None:
    nexus.create("box")
    nexus.ok("sandbox", "run", "box", "-c", "out x")
    assert nexus.ok("projections", "verify", "--json", env=nexus.owner).json["verified"][0]["equal"] is True
    nexus.write("UPDATE sandboxes SET name = 'forged'")
    broken = nexus("projections", "verify", "sandboxes", "--json", env=nexus.owner)
    assert (broken.status, broken.error["code"]) == (7, "verification_failed")
    assert "name is 'forged' in the view and 'box' by replay" in broken.json["verified"][0]["difference"]
    assert "DIFFERS" in nexus("projections", "verify", env=nexus.owner).text
    rebuilt = nexus.ok("projections", "rebuild", "sandboxes", "--json", env=nexus.owner).json["rebuilt"]
    assert [one["name"] for one in rebuilt] == ["sandboxes"]
    verified = nexus.ok("projections", "verify", "--json", env=nexus.owner).json["verified"]
    assert [one["name"] for one in verified] == NAMES
    assert nexus.ok("projections", "rebuild", env=nexus.owner).text.count("Rebuilt") == len(NAMES)


def test_an_unknown_projection(nexus: Console) -> None:
    for command in ("rebuild", "verify"):
        refused = nexus("projections", command, "sandboxes", "nosuch", "--json", env=nexus.owner)
        assert (refused.status, refused.error["code"], refused.out) == (2, "invalid_input", b"")


# --- doctor and providers --------------------------------------------------------------------------------------------
def test_doctor_is_content_when_the_default_provider_has_what_it_needs(nexus: Console) -> None:
    told = nexus.process("doctor", "--json").json
    checks = {finding["check"]: finding for finding in told["findings"]}
    assert told["ok"] is True
    assert told["versions"]["nexus"] == package.__version__
    assert {"settings", "data folder", "store", "default provider"} <= set(checks)
    assert checks["default provider"]["detail"] == "scripted"
    assert not [check for check, finding in checks.items() if finding["required"] and not finding["ok"]]
    text = nexus.process("doctor").text
    assert "default provider: scripted" in text
    assert nexus.process("doctor", "--quiet") == Result(0, b"", "")


def test_doctor_says_what_is_missing(nexus: Console, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    result = nexus.process("doctor", "--json", env={"NEXUS_DATA_DIR": str(blocked / "below")})
    checks = {finding["check"]: finding for finding in result.json["findings"]}
    assert (result.status, result.json["ok"], checks["data folder"]["ok"]) == (1, False, False)
    assert "NEXUS_DATA_DIR" in checks["data folder"]["hint"]


def test_doctor_names_an_unknown_provider(nexus: Console) -> None:
    result = nexus.process("doctor", env={"NEXUS_SANDBOX_PROVIDER": "nowhere"})
    assert result.status == 1
    assert "MISSING default provider: Unknown provider 'nowhere'" in result.text


def test_doctor_works_with_settings_that_do_not(nexus: Console) -> None:
    result = nexus.process("doctor", "--json", env={"NEXUS_MAX_TIMEOUT": "long"})
    assert result.status == 1
    (finding,) = result.json["findings"]
    assert (finding["check"], finding["ok"]) == ("settings", False)


def test_doctor_looks_into_the_store(nexus: Console) -> None:
    nexus.data.mkdir()
    (nexus.data / "nexus.db").write_bytes(b"this is not a database, and long enough to be seen as none" * 20)
    result = nexus.process("doctor", "--json")
    checks = {finding["check"]: finding for finding in result.json["findings"]}
    assert (result.status, checks["store"]["ok"]) == (1, False)
    assert "is not a database" in checks["store"]["detail"]


def test_doctor_makes_no_store(nexus: Console) -> None:
    assert nexus.process("doctor").status == 0
    assert not (nexus.data / "nexus.db").exists()


def test_providers(nexus: Console) -> None:
    found = {one["name"]: one for one in nexus.ok("providers", "--json").json["providers"]}
    assert list(found)[:4] == ["local", "docker", "e2b", "modal"]
    assert found["scripted"]["configured"] is True
    assert found["scripted"]["capabilities"]["pause"] == "memory"
    table = nexus.ok("providers").text
    assert "files and processes" in table
    assert "scripted" in nexus.ok("providers", "--quiet").text.split()


# --- config ----------------------------------------------------------------------------------------------------------
SECRET = "canary-5d41402a"


def test_config_says_where_each_value_is_from_and_no_secret(nexus: Console, tmp_path: Path) -> None:
    file = tmp_path / "nexus.toml"
    file.write_text('max_timeout = 77\nmodal_token_id = "canary-5d41402a"\n[templates.big]\nimage = "x"\n')
    env = {
        "NEXUS_CONFIG": str(file),
        "E2B_API_KEY": SECRET,
        "NEXUS_DATABASE_URL": f"postgresql://u:{SECRET}@h/d",
        "NEXUS_ADMIN": "1",
    }
    result = nexus.ok("config", "show", "--json", env=env)
    told = result.json
    assert list(told["settings"]) == [setting.name for setting in SETTINGS]
    assert told["file"] == str(file)
    assert told["templates"] == ["big"]
    value = told["settings"]
    assert (value["max_timeout"]["value"], value["max_timeout"]["source"]) == (77, f"file ({file})")
    assert (value["user"]["value"], value["user"]["source"]) == ("ann", "environment (NEXUS_USER)")
    assert (value["tenant"]["value"], value["tenant"]["source"]) == ("default", "default")
    assert value["admin"]["value"] is True
    assert (value["e2b_api_key"]["value"], value["e2b_api_key"]["is_set"]) == (None, True)
    assert value["modal_token_secret"]["is_set"] is False
    text = nexus.ok("config", "show", env=env)
    assert "(set)" in text.text
    assert SECRET not in text.text + text.err + result.text + result.err


def test_a_password_in_the_store_address_reaches_no_error(nexus: Console) -> None:
    for address in (f"mysql://u:{SECRET}@h/d", f"postgresql://u:{SECRET}@127.0.0.1:1/d?connect_timeout=1"):
        for command in (["sandbox", "list"], ["sandbox", "create", "x"], ["doctor"]):
            result = nexus.process(*command, env={"NEXUS_DATABASE_URL": address})
            assert result.status == 1
            assert SECRET not in result.text + result.err


@pytest.mark.parametrize(
    ("name", "value"), [("NEXUS_MAX_TIMEOUT", "١٢"), ("NEXUS_ADMIN", "perhaps"), ("NEXUS_CONFIG", "/nowhere/at/all")]
)
def test_a_wrong_setting_is_named(nexus: Console, name: str, value: str) -> None:
    result = nexus("sandbox", "list", "--json", env={name: value})
    assert (result.status, result.error["code"]) == (1, "configuration")
    assert (name if name != "NEXUS_CONFIG" else value) in result.error["message"]


# --- completion and the rest -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(nexus: Console, shell: str) -> None:
    script = nexus.ok("completion", shell).text
    assert "_NEXUS_COMPLETE" in script
    checker = shutil.which(shell)
    if shell == "bash":
        assert checker is not None
        subprocess.run([checker, "-n"], input=script.encode(), check=True)
    assert nexus("completion", "csh").status == 2


def test_completion_knows_commands_options_and_names(nexus: Console) -> None:
    sandbox_id = nexus.create("my-box")

    def completed(*words: str) -> list[str]:
        env = {"_NEXUS_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
        return [line.partition(",")[2] for line in nexus.process(env=env).text.splitlines()]

    assert completed("nexus", "sand") == ["sandbox"]
    assert completed("nexus", "sandbox", "st") == ["status", "stop"]
    assert "--timeout" in completed("nexus", "sandbox", "run", "--t")
    assert completed("nexus", "sandbox", "run", "my") == ["my-box"]
    assert completed("nexus", "sandbox", "stop", "sb_") == [sandbox_id]


def test_version_and_help(nexus: Console) -> None:
    assert nexus.ok("--version").text == f"nexus {package.__version__}\n"
    assert nexus.ok("-h").out == nexus.ok("--help").out
    alone = nexus()
    assert (alone.status, alone.out) == (2, b"")
    assert "Usage: nexus" in alone.err
    assert "Traceback" not in alone.err
