"""The compose file: what can be held against the program without an image registry is, and its steps are gone through.

The roles, the migration and a worker's round are carried out for real, on a server of the test's own.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from nexus import config
from nexus.cli import main
from tests.integration.cli.console import Console
from tests.support.postgres import SUPERUSER, private_server, programs

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
PASSWORDS = {"POSTGRES_PASSWORD": "pw1", "NEXUS_OWNER_PASSWORD": "pw2", "NEXUS_APP_PASSWORD": "pw3"}
OURS = ("migrate", "worker")


def compose(env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What docker-compose makes of the file; it knows the file's schema and fills in the variables."""
    return subprocess.run(
        ["docker-compose", "-f", str(DEPLOY / "compose.yaml"), "config"],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **env},
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    done = compose(PASSWORDS)
    assert done.returncode == 0, done.stderr
    # Debian's docker-compose brings a YAML parser for Debian's python.
    parse = "import json, sys, yaml; json.dump(yaml.safe_load(sys.stdin), sys.stdout)"
    parsed = subprocess.run(
        ["/usr/bin/python3", "-c", parse], input=done.stdout, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(parsed.stdout)["services"]
    return found


@pytest.mark.parametrize("missing", PASSWORDS)
def test_it_does_not_start_without_passwords(missing: str) -> None:
    done = compose({name: value for name, value in PASSWORDS.items() if name != missing})
    assert done.returncode != 0
    assert missing in done.stderr
    assert "env.example" in done.stderr


def test_every_variable_is_in_the_example() -> None:
    used = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    lines = (DEPLOY / "env.example").read_text().splitlines()
    assert used == {line.partition("=")[0] for line in lines if line and not line.startswith("#")}


def test_every_command_and_setting_is_one_that_the_program_knows(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {variable for setting in config.SETTINGS for variable in setting.variables}
    for name in OURS:
        command = services[name]["command"]
        assert main([*(shlex.split(command) if isinstance(command, str) else command), "--help"]) == 0
        environment = services[name]["environment"]
        assert set(environment) <= known
        loaded = config.load(env=environment, file=None)
        assert loaded.database_url.endswith("@db/nexus")


def test_who_waits_for_whom(services: dict[str, Any]) -> None:
    assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["worker"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    owner, application = (services[name]["environment"]["NEXUS_DATABASE_URL"] for name in OURS)
    assert "nexus_owner:" in owner
    assert "nexus_app:" in application
    assert "nexus_app" in services["migrate"]["command"]
    (script,) = [one for one in services["db"]["volumes"] if "initdb.d" in str(one)]
    assert "deploy/postgres-roles.sh" in str(script)


def test_the_image_is_made_of_what_is_there() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    instructions = [line.split() for line in lines if re.match(r"[A-Z]+ ", line)]
    copied = [words[1:-1] for words in instructions if words[0] == "COPY" and not words[1].startswith("--")]
    assert copied
    for source in (source for sources in copied for source in sources):
        assert (ROOT / source).exists(), source
    assert ["ENTRYPOINT", '["nexus"]'] in instructions
    assert ["USER", "nexus"] in instructions, "not as root"
    for file in re.findall(r"--require-hashes -r (\S+)", "\n".join(lines)):
        assert "--hash=sha256:" in (ROOT / file).read_text()


def test_its_steps_one_after_the_other(services: dict[str, Any], tmp_path: Path) -> None:
    with private_server(fsync="off") as server:
        with psycopg.connect(server.url("postgres", SUPERUSER), autocommit=True) as connection:
            for role in ("nexus_owner", "nexus_app"):
                connection.execute(f"DROP ROLE IF EXISTS {role}")
            connection.execute("CREATE DATABASE nexus")
        environment = {
            **services["db"]["environment"],
            "PATH": f"{programs()}:{os.environ['PATH']}",
            "PGHOST": str(server.folder),
        }
        done = subprocess.run(
            [str(DEPLOY / "postgres-roles.sh")], env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        # As the server's own network would have it: passwords are asked for.
        (server.data / "pg_hba.conf").write_text(f"local all {SUPERUSER} trust\nlocal all all scram-sha-256\n")
        with psycopg.connect(server.url("postgres", SUPERUSER), autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")

        nexus, here = Console(tmp_path), f"@{quote(str(server.folder), safe='')}/"

        def run(name: str, *more: str) -> str:
            url = services[name]["environment"]["NEXUS_DATABASE_URL"].replace(
                "@db/nexus", f"@/nexus?host={server.folder}"
            )
            command = services[name]["command"]
            words = shlex.split(command) if isinstance(command, str) else command
            return nexus.ok(*words, *more, env={"NEXUS_DATABASE_URL": url}).text

        assert run("migrate").startswith("Schema version")
        assert "nothing to do" in run("migrate", "--check")
        run("worker", "--once")
        application = services["worker"]["environment"]["NEXUS_DATABASE_URL"]
        wrong = application.replace(":pw3@db/", f":pw2{here}")
        refused = nexus("sandbox", "list", env={"NEXUS_DATABASE_URL": wrong})
        assert refused.status == 1
        assert "refuses the password" in refused.err
        assert "pw2" not in refused.err
