"""`nexus sandbox run` and `exec`: where code comes from, where output goes, and how the call ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nexus.domain.policies import Limits
from nexus.domain.provider import OUTPUT_CAP, Capabilities
from tests.integration.cli import scripted
from tests.integration.cli.console import Console

LIMIT = Limits().max_code_bytes


@pytest.fixture
def box(nexus: Console) -> str:
    return nexus.create("box")


# --- where code comes from -------------------------------------------------------------------------------------------
def test_code_on_the_command_line(nexus: Console, box: str) -> None:
    result = nexus.ok("sandbox", "run", "box", "-c", "out hello\nerr there")
    assert (result.out, result.err) == (b"hello\n", "there\n")


def test_code_that_looks_like_an_option(nexus: Console, box: str) -> None:
    assert nexus.ok("sandbox", "run", "box", "-c", "--json").out == b"--json"


def test_empty_code_runs(nexus: Console, box: str) -> None:
    assert nexus.ok("sandbox", "run", "box", "-c", "").out == b""
    assert nexus.story()[-1] == "ExecutionFinished"


def test_code_on_standard_input_goes_on_byte_for_byte(nexus: Console, box: str) -> None:
    code = b"\xef\xbb\xbfprint('\xff\xfe')\r\n"
    assert nexus.ok("sandbox", "run", box, "-l", "javascript", "-c", "-", stdin=code).out == code
    assert nexus.ok("sandbox", "run", box, "-c", "-").out == b""


def test_code_in_a_file_goes_on_byte_for_byte(nexus: Console, box: str, tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.write_bytes(b"\x80\r\n\xff")
    assert nexus.ok("sandbox", "run", box, "-f", str(file)).out == b"\x80\r\n\xff"


def test_an_argument_in_no_encoding_goes_on_byte_for_byte(nexus: Console, box: str) -> None:
    assert nexus.ok("sandbox", "run", box, "-c", os.fsdecode(b"\xff\x80")).out == b"\xff\x80"


@pytest.mark.parametrize(
    ("file", "language"),
    [("a.py", "python"), ("a.js", "javascript"), ("a.mjs", "javascript"), ("a.sh", "bash"), ("a", "python")],
)
def test_a_files_name_tells_its_language(nexus: Console, box: str, tmp_path: Path, file: str, language: str) -> None:
    (tmp_path / file).write_text("out x")
    told = nexus.ok("sandbox", "run", box, "--json", "-f", str(tmp_path / file)).json
    assert told["language"] == language
    told = nexus.ok("sandbox", "run", box, "--json", "-l", "bash", "-f", str(tmp_path / file)).json
    assert told["language"] == "bash"


def test_code_of_the_largest_size_runs_and_one_byte_more_does_not(nexus: Console, box: str, tmp_path: Path) -> None:
    file = tmp_path / "code"
    file.write_bytes(b"#" * LIMIT)
    assert nexus.ok("sandbox", "run", box, "-f", str(file), "--json").json["stdout_bytes"] == LIMIT
    assert nexus.ok("sandbox", "run", box, "-c", "-", "--json", stdin=b"#" * LIMIT).json["stdout_bytes"] == LIMIT
    before = nexus.head()
    file.write_bytes(b"#" * (LIMIT + 1))
    for refused in (
        nexus("sandbox", "run", box, "-f", str(file)),
        nexus("sandbox", "run", box, "-c", "-", stdin=b"#" * (LIMIT + 1)),
    ):
        assert refused.status == 2
        assert f"more than {LIMIT} bytes" in refused.err
    assert nexus.head() == before


def test_a_file_that_never_ends_is_not_read_to_its_end(nexus: Console, box: str, tmp_path: Path) -> None:
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(1 << 40)
    assert nexus("sandbox", "run", box, "-f", str(huge)).status == 2


def test_what_is_no_regular_file_is_refused(nexus: Console, box: str, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    before = nexus.head()
    for path in (str(fifo), str(tmp_path), "/dev/zero", "/dev/null", str(tmp_path / "none"), "", "a\0b", "-"):
        refused = nexus("sandbox", "run", box, "--json", "-f", path)
        assert (refused.status, refused.error["code"]) == (2, "invalid_input"), path
    assert nexus.head() == before


@pytest.mark.parametrize(
    "wrong",
    [
        [], ["-c", "1", "-f", "x"], ["-c", "-", "--stdin"], ["-c", "1", "-l", "ruby"], ["-c", "1", "-l", "PYTHON"],
        ["-c", "1", "-l", ""], ["-c", "1", "--timeout", "0"], ["-c", "1", "--timeout", "3601"],
        ["-c", "1", "--timeout", "-1"], ["-c", "1", "--timeout", "1.5"], ["-c", "1", "--timeout", "inf"],
        ["-c", "1", "--env", "A-B=1"], ["-c", "1", "--env", "NOT_SET_HERE"], ["-c", "a\0b"],
        ["-c", "1", "--json", "--stream"], ["-c"], ["-c", "1", "more"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_wrong_use_is_status_2_and_records_nothing(nexus: Console, box: str, wrong: list[str]) -> None:
    before = nexus.head()
    result = nexus("sandbox", "run", "box", *wrong)
    assert (result.status, result.out) == (2, b"")
    assert nexus.head() == before


def test_an_unknown_language_is_told_the_known_ones(nexus: Console, box: str) -> None:
    refused = nexus("sandbox", "run", box, "-c", "1", "-l", "ruby", "--json")
    assert refused.error["hint"] == "Known languages: python, javascript, bash."


# --- what the program gets -------------------------------------------------------------------------------------------
def test_variables_of_a_run(nexus: Console, box: str) -> None:
    told = nexus.ok("sandbox", "run", box, "-c", "env A", "--env", "A=one=two")
    assert told.out == b"one=two"
    assert nexus.ok("sandbox", "run", box, "-c", "env A", "--env", "A", env={"A": "mine"}).out == b"mine"


def test_standard_input_for_the_program(nexus: Console, box: str) -> None:
    assert nexus.ok("sandbox", "run", box, "-c", "stdin", "-i", stdin=b"a\xff").out == b"a\xff"
    assert nexus.ok("sandbox", "run", box, "-c", "stdin", stdin=b"not asked for").out == b""


def test_exec_takes_everything_after_the_dashes(nexus: Console, box: str) -> None:
    assert nexus.ok("sandbox", "exec", box, "--", "ls", "-la", "--json", "a b").out == b"ls -la --json 'a b'"
    assert nexus.ok("sandbox", "exec", "--timeout", "5", box, "--", "--", "x").out == b"-- x"
    told = nexus.ok("sandbox", "exec", box, "--json", "--", "ls").json
    assert (told["stdout"], told["language"]) == ("ls", "command")


@pytest.mark.parametrize(
    "wrong", [[], ["--"], ["ls", "-la"], ["--", ""], ["--", "a\0b"], ["--timeout", "x", "--", "ls"]], ids=" ".join
)
def test_exec_wrong_use(nexus: Console, box: str, wrong: list[str]) -> None:
    before = nexus.head()
    assert nexus("sandbox", "exec", "box", *wrong).status == 2
    assert nexus.head() == before


def test_what_the_provider_cannot_run_is_refused_before_it_is_recorded(nexus: Console, box: str) -> None:
    nexus.provider = scripted.provider(nexus.cloud, Capabilities(languages=("python",), argv=False, stdin=False))
    before = nexus.head()
    for command in (["run", box, "-l", "bash", "-c", "1"], ["exec", box, "--", "ls"]):
        refused = nexus("sandbox", command[0], "--json", *command[1:])
        assert (refused.status, refused.error["code"]) == (125, "provider_unsupported")
    assert nexus("sandbox", "run", box, "-c", "1", "-i", stdin=b"x").status == 125
    assert [event.topic for event in nexus.events(before)] == ["command.refused"] * 3


# --- where output goes -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
def test_output_goes_on_byte_for_byte(nexus: Console, box: str, option: str) -> None:
    result = nexus.ok("sandbox", "run", box, option, "-c", "hex 1b5d303b68690a07ff00\nerr e")
    assert result.out == bytes.fromhex("1b5d303b68690a07ff00")
    assert result.err == "e\n"


def test_json_replaces_what_is_no_text_and_says_so(nexus: Console, box: str) -> None:
    result = nexus.ok("sandbox", "run", box, "--json", "-c", "hex 61ff1b7f62c3a9")
    assert result.json["stdout"] == "a�\x1b\x7fbé"
    assert result.json["valid_utf8"] is False
    assert result.out.isascii()
    assert b"\x1b" not in result.out
    assert b"\x7f" not in result.out
    assert nexus.ok("sandbox", "run", box, "--json", "-c", "out é").json["valid_utf8"] is True


def test_output_that_imitates_ours_stays_in_its_field(nexus: Console, box: str) -> None:
    told = nexus.ok("sandbox", "run", box, "--json", "-c", 'out {"exit_code": 99}').json
    assert (told["stdout"], told["exit_code"]) == ('{"exit_code": 99}\n', 0)


def test_a_flood_is_cut_and_said_to_be(nexus: Console, box: str) -> None:
    result = nexus.ok("sandbox", "run", box, "-c", f"flood {scripted.FLOOD}")
    assert len(result.out) == OUTPUT_CAP
    assert result.err == f"nexus: stdout was cut: {OUTPUT_CAP} of {scripted.FLOOD} bytes were kept\n"
    told = nexus.ok("sandbox", "run", box, "--json", "-c", f"flood {scripted.FLOOD}").json
    assert (told["truncated"], told["stdout_bytes"], len(told["stdout"])) == (True, scripted.FLOOD, OUTPUT_CAP)
    assert nexus.ok("sandbox", "run", box, "--quiet", "-c", f"flood {scripted.FLOOD}").err == ""


# --- how it ends -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [0, 1, 3, 5, 125, 137, 255])
@pytest.mark.parametrize("mode", [[], ["--json"]], ids=["plain", "json"])
def test_the_programs_status_is_the_calls(nexus: Console, box: str, status: int, mode: list[str]) -> None:
    result = nexus("sandbox", "run", box, *mode, "-c", f"out x\nexit {status}")
    assert result.status == status
    assert result.err == ""
    if mode:
        assert result.json["exit_code"] == status
        assert result.json["signal"] == (status - 128 if status > 128 else None)


def test_a_status_that_no_process_can_have_is_never_taken_for_success(nexus: Console, box: str) -> None:
    assert nexus("sandbox", "run", box, "-c", "exit 256").status == 1
    assert nexus("sandbox", "run", box, "-c", "exit 300").status == 44


@pytest.mark.parametrize("option", ["--stream", "--no-stream"])
def test_a_time_out_prints_what_there_was(nexus: Console, box: str, option: str) -> None:
    result = nexus("sandbox", "run", box, option, "--timeout", "1", "-c", "out so far\nsleep 60")
    assert (result.status, result.out) == (124, b"so far\n")
    assert result.err.startswith("Error: Code execution exceeded 1 second timeout\nHint: ")


def test_a_time_out_in_json_is_a_result_and_an_error(nexus: Console, box: str) -> None:
    result = nexus("sandbox", "run", box, "--json", "--timeout", "1", "-c", "out so far\nsleep 60")
    assert result.status == 124
    assert (result.json["timed_out"], result.json["exit_code"], result.json["stdout"]) == (True, 124, "so far\n")
    assert result.error["code"] == "execution_timed_out"


def test_125_means_that_it_did_not_run(nexus: Console, box: str) -> None:
    nexus.provider.cloud.fail("run", "ProviderUnavailable")
    refused = nexus("sandbox", "run", box, "--json", "-c", "1")
    assert (refused.status, refused.error["code"]) == (125, "provider_unavailable")
    assert nexus("sandbox", "run", box, "-c", "1", env={"NEXUS_MAX_TIMEOUT": "x"}).status == 1  # not even begun


def test_an_unknown_outcome_is_not_125(nexus: Console, box: str) -> None:
    nexus.provider.cloud.lose_answer("run")
    refused = nexus("sandbox", "run", box, "--json", "-c", "exit 0")
    assert (refused.status, refused.error["code"]) == (1, "execution_lost")
    assert nexus.story()[-1] == "ExecutionLost"


def test_a_failure_after_output_is_not_125(nexus: Console, box: str) -> None:
    result = nexus("sandbox", "run", box, "-c", "out begun\nraise ProviderUnavailable")
    assert (result.status, result.out) == (1, b"begun\n")


def test_ctrl_c_ends_with_130_and_is_recorded(nexus: Console, box: str) -> None:
    result = nexus("sandbox", "run", box, "--json", "-c", "out begun\nraise KeyboardInterrupt")
    assert (result.status, result.error["code"]) == (130, "interrupted")
    assert nexus.story()[-1] == "ExecutionLost"


def test_an_exception_that_nobody_foresaw_quotes_nothing(nexus: Console, box: str) -> None:
    result = nexus("sandbox", "run", box, "-c", "raise ZeroDivisionError")
    assert result.status == 125
    assert result.err == (
        "Error: Nexus met an error that it does not know: ZeroDivisionError\nHint: Set NEXUS_DEBUG=1 for the details.\n"
    )


@pytest.mark.parametrize(("state", "told"), [("paused", 6), ("stopped", 6)])
def test_only_an_active_sandbox_runs(nexus: Console, box: str, state: str, told: int) -> None:
    nexus.ok("sandbox", "pause" if state == "paused" else "stop", box)
    before = nexus.head()
    refused = nexus("sandbox", "run", box, "--json", "-c", "1")
    assert (refused.status, refused.error["code"]) == (told, "illegal_transition")
    assert refused.error["message"] == f"Cannot run a sandbox that is {state}"
    assert [event.topic for event in nexus.events(before)] == ["command.refused"]
