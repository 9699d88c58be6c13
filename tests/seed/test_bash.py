"""Every bash block of the source document through bash, with the real `nexus` on PATH."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nexus import NexusFS
from tests.seed.blocks import blocks

REFERENCE = [line.split() for line in blocks("bash")["CLI Reference"].text.splitlines()]


def bash(script: str, folder: Path) -> str:
    """What the script prints; it has to succeed line by line, and says nothing on stderr."""
    programs = Path(sys.executable).parent
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def test_no_block_is_forgotten() -> None:
    assert set(blocks("bash")) == {"Basic Commands", "JSON Output for Scripting", "CLI Reference"}


def test_basic_commands(installation: Path, tmp_path: Path) -> None:
    """As written, but for the two lines with E2B credentials, and with a real id's beginning for sb_abc123."""
    (tmp_path / "script.py").write_text("print('from a file')\n")
    script = blocks("bash")["Basic Commands"].text
    credentials = [line for line in script.splitlines() if line.startswith("export E2B_")]
    assert len(credentials) == 2
    for line in credentials:
        script = script.replace(line + "\n", "")
    create, marker, rest = script.partition("# Run Python code\n")
    assert marker
    created = re.fullmatch(r"Created sandbox: (sb_[0-9a-f]{32})\n", bash(create, tmp_path))
    assert created is not None
    prefix = created[1][: len("sb_abc123")]
    printed = bash(rest.replace("sb_abc123", prefix), tmp_path)
    assert printed.startswith("Hello from sandbox!\nfrom a file\ntest\n")
    for said in (created[1], "my-sandbox", "active", "Stopped sandbox: "):
        assert said in printed.removeprefix("Hello from sandbox!\nfrom a file\ntest\n")


def test_json_output(installation: Path, tmp_path: Path) -> None:
    printed = bash(blocks("bash")["JSON Output for Scripting"].text, tmp_path)
    assert printed.split() == ["42", '"active"']


def command_line(words: list[str], *, options: bool, values: dict[str, str]) -> list[str]:
    """A line of the reference as somebody would type it: placeholders filled in, optional parts given or left out."""
    text = " ".join(words)
    text = re.sub(r"\[(.*?)\]", r"\1" if options else "", text)
    return [values.get(word, word) for word in text.split()]


@pytest.mark.parametrize("options", [False, True], ids=["bare", "with every option"])
def test_reference(options: bool, installation: Path, tmp_path: Path) -> None:
    said: dict[str, str] = {}
    values = {
        "<name>": "by-the-book",
        "<code>": "print(1)",
        "MINUTES": "7",
        "SECONDS": "9",
        "LANGUAGE": "python",
        "ID": "default",
    }
    for words in REFERENCE:
        line = command_line(words, options=options, values=values)
        assert not [word for word in line if word.startswith(("<", "["))], line
        script = " ".join(f"'{word}'" for word in line)
        said[words[2]] = bash(script, tmp_path)
        if words[2] == "create":
            found = re.search(r"sb_[0-9a-f]{32}", said["create"])
            assert found is not None
            values["<sandbox_id>"] = found[0]
    assert list(said) == ["create", "run", "pause", "resume", "stop", "list", "status"]
    if not options:
        assert said["run"] == "1\n"
        assert "stopped" in said["status"]
        return
    answers = {command: json.loads(text) for command, text in said.items()}
    assert answers["run"]["stdout"] == "1\n"
    assert answers["create"]["ttl_minutes"] == 7
    assert [answers[each]["status"] for each in ("create", "pause", "resume", "stop", "status")] == [
        "active",
        "paused",
        "active",
        "stopped",
        "stopped",
    ]
    assert answers["list"]["sandboxes"] == []


def test_comments_that_show_commands_work_too(installation: Path, tmp_path: Path, nx: NexusFS) -> None:
    """`Code Input Methods` shows two commands as comments."""
    shown = [
        line.removeprefix("# ")
        for line in blocks("python")["Code Input Methods"].text.splitlines()
        if line.startswith(("# nexus ", "# cat "))
    ]
    assert len(shown) == 2
    sandbox_id = nx.sandbox_create("comments")["sandbox_id"]
    (tmp_path / "data_analysis.py").write_text("print('analysed')\n")
    (tmp_path / "script.py").write_text("print('piped')\n")
    printed = [bash(line.replace("sb_123", sandbox_id[:9]), tmp_path) for line in shown]
    assert printed == ["analysed\n", "piped\n"]
