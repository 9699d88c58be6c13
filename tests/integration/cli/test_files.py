"""`nexus sandbox cp`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nexus.domain.policies import Limits
from tests.integration.cli.console import Console

LIMIT = Limits().max_file_bytes


@pytest.fixture
def box(nexus: Console) -> str:
    return nexus.create("box")


def test_into_and_out_of(nexus: Console, box: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    (tmp_path / "in.bin").write_bytes(content)
    assert nexus.ok("sandbox", "cp", str(tmp_path / "in.bin"), "box:/data/in.bin").out == b""
    nexus.ok("sandbox", "cp", "box:/data/in.bin", str(tmp_path / "out.bin"))
    assert (tmp_path / "out.bin").read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} - {"data"} == {"cloud", "in.bin", "out.bin", "site"}


def test_standard_streams(nexus: Console, box: str) -> None:
    nexus.ok("sandbox", "cp", "-", f"{box}:/x", stdin=b"\x00\xff")
    assert nexus.ok("sandbox", "cp", f"{box}:/x", "-").out == b"\x00\xff"


def test_into_a_folder_under_its_own_name(nexus: Console, box: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    nexus.ok("sandbox", "cp", str(tmp_path / "a.txt"), "box:/data/")
    target = tmp_path / "folder"
    target.mkdir()
    nexus.ok("sandbox", "cp", "box:/data/a.txt", str(target))
    assert (target / "a.txt").read_text() == "a"
    nexus.ok("sandbox", "cp", str(tmp_path / "a.txt"), "box:")
    assert nexus.ok("sandbox", "cp", "box:a.txt", "-").out == b"a"


def test_a_colon_in_a_path_here(nexus: Console, box: str, tmp_path: Path) -> None:
    (tmp_path / "a:b").write_text("colon")
    nexus.ok("sandbox", "cp", f"{tmp_path}/a:b", "box:/c")
    assert nexus.ok("sandbox", "cp", "box:/c", "-").out == b"colon"


def test_json_tells_what_was_copied(nexus: Console, box: str, tmp_path: Path) -> None:
    told = nexus.ok("sandbox", "cp", "-", "box:/x", "--json", stdin=b"abc").json
    assert told == {"sandbox_id": box, "path": "/x", "local": None, "direction": "in", "bytes": 3}
    told = nexus.ok("sandbox", "cp", "box:/x", str(tmp_path / "y"), "--json").json
    assert told == {"sandbox_id": box, "path": "/x", "local": str(tmp_path / "y"), "direction": "out", "bytes": 3}


def test_a_copy_keeps_the_mode_of_what_it_replaces(nexus: Console, box: str, tmp_path: Path) -> None:
    nexus.ok("sandbox", "cp", "-", "box:/x", stdin=b"new")
    target = tmp_path / "script"
    target.write_text("old")
    target.chmod(0o755)
    nexus.ok("sandbox", "cp", "box:/x", str(target))
    assert (target.read_text(), target.stat().st_mode & 0o777) == ("new", 0o755)


def test_what_is_not_in_the_sandbox_leaves_everything_here_as_it_was(nexus: Console, box: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    refused = nexus("sandbox", "cp", "box:/none", str(target), "--json")
    assert (refused.status, refused.error["code"]) == (5, "file_not_found")
    assert target.read_text() == "old"
    assert nexus("sandbox", "cp", "box:/none", str(tmp_path / "new")).status == 5
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_read_or_written_here(nexus: Console, box: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    nexus.ok("sandbox", "cp", "-", "box:/x", stdin=b"x")
    for arguments in (
        [str(tmp_path / "none"), "box:/y"], [str(tmp_path), "box:/y"], [str(tmp_path / "fifo"), "box:/y"],
        ["/dev/zero", "box:/y"], ["box:/x", str(tmp_path / "no" / "folder")], ["box:/x", str(tmp_path / "fifo")],
        ["box:/x", "/dev/null"], ["-", "box:/folder/"],
    ):  # fmt: skip
        assert nexus("sandbox", "cp", *arguments).status == 2, arguments


def test_too_large_a_file_is_not_sent(nexus: Console, box: str, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(LIMIT + 1)
    refused = nexus("sandbox", "cp", str(tmp_path / "huge"), "box:/x", "--json")
    assert (refused.status, refused.error["code"]) == (2, "invalid_input")
    assert nexus.provider.cloud.calls("write_file") == []


def test_a_stopped_sandbox_has_no_files(nexus: Console, box: str) -> None:
    nexus.ok("sandbox", "stop", box)
    assert nexus("sandbox", "cp", f"{box}:/x", "-").status == 6
    assert nexus("sandbox", "cp", "-", f"{box}:/x").status == 6
