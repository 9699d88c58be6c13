"""What `scripts/demo` shows: the real command line in a data folder of its own, each step checked as it goes.

Standard library only. Exits 0 only if everything happened as told; cleans up in every case.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

NEXUS = Path(sys.executable).parent / "nexus"
BOLD, DIM, GREEN, RED, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m")
if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
    BOLD = DIM = GREEN = RED = PLAIN = ""


class Untrue(Exception):
    """Something did not happen as told."""


def all_processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def typed(words: tuple[str, ...]) -> str:
    """The words as a person would type them."""
    return " ".join(
        f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word) for word in words
    )


class Processes:
    """The processes that belong to a data folder: those that name it, and all below them."""

    def __init__(self, folder: Path) -> None:
        self._mark = os.fsencode(folder)
        self.seen: dict[int, str] = {}
        """Process id to start time: a number alone may belong to somebody else by now."""

    def look(self) -> dict[int, str]:
        """Those that live now; they are remembered."""
        parents = {pid: self._fields(pid) for pid in self._all()}
        ours = {pid for pid in parents if self._names_us(pid)}
        while True:
            more = {pid for pid, (parent, _) in parents.items() if parent in ours} - ours
            if not more:
                break
            ours |= more
        found = {pid: parents[pid][1] for pid in ours if parents[pid][1]}
        self.seen.update(found)
        return found

    def remaining(self) -> list[int]:
        """Those that were ever seen, or belong to the folder, and live."""
        self.look()
        return [pid for pid, start in self.seen.items() if self._fields(pid)[1] == start]

    @staticmethod
    def _all() -> list[int]:
        return [pid for pid in all_processes() if pid != os.getpid()]

    @staticmethod
    def _fields(pid: int) -> tuple[int, str]:
        """Parent and start time; nothing for a process that is gone or only waits to be reaped."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0, ""
        return (int(fields[1]), fields[19]) if fields[0] not in "ZX" else (0, "")

    def _names_us(self, pid: int) -> bool:
        for name in ("cmdline", "environ"):
            try:
                if self._mark in Path(f"/proc/{pid}/{name}").read_bytes():
                    return True
            except OSError:
                continue
        return False


def running(text: str) -> list[int]:
    """Processes of this machine that have `text` as an argument."""
    found = []
    for pid in all_processes():
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if text.encode() in arguments:
            found.append(pid)
    return found


def until(condition: Callable[[], object], seconds: float) -> bool:
    """Whether the condition came true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class Story:
    """Tells, runs and checks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = Processes(folder)
        self.checks = 0
        (folder / "config.toml").write_text("")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_")}
        self.env = {**kept, "NEXUS_DATA_DIR": str(folder / "data"), "NEXUS_CONFIG": str(folder / "config.toml")}

    def chapter(self, text: str) -> None:
        print(f"\n{BOLD}{text}{PLAIN}", flush=True)

    def nexus(self, *words: str, status: int = 0, stdin: str | None = None, quiet: bool = False) -> str:
        """Run the command line as a user would; what it prints on both streams is shown, stdout is returned."""
        if not quiet:
            piped = f"echo {typed((stdin,))} | " if stdin else ""
            print(f"{DIM}${PLAIN} {piped}nexus {typed(words)}", flush=True)
        done = subprocess.run(
            [NEXUS, *words], env=self.env, input=stdin, capture_output=True, text=True, timeout=120, check=False
        )
        if not quiet:
            self._show(done.stdout + done.stderr)
        if done.returncode != status:
            raise Untrue(f"exit status {done.returncode}, not {status}: {done.stderr or done.stdout}")
        return done.stdout

    def begin(self, *words: str) -> subprocess.Popen[str]:
        print(f"{DIM}${PLAIN} nexus {typed(words)}", flush=True)
        return subprocess.Popen(
            [NEXUS, *words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def end(self, begun: subprocess.Popen[str], status: int) -> str:
        output = begun.communicate(timeout=60)[0]
        self._show(output)
        if begun.returncode != status:
            raise Untrue(f"exit status {begun.returncode}, not {status}")
        return output

    def check(self, claim: str, *, true: object) -> None:
        if not true:
            raise Untrue(claim)
        self.checks += 1
        print(f"  {GREEN}✓{PLAIN} {claim}", flush=True)

    @staticmethod
    def _show(text: str) -> None:
        print(textwrap.indent(text, "  "), end="", flush=True)

    # --- the end -----------------------------------------------------------------------------------------------------
    def clean_up(self) -> None:
        """Stop what is there; whatever still lives after that is killed, so that nothing is left in any case."""
        subprocess.run([NEXUS, "sandbox", "stop", "--all"], env=self.env, capture_output=True, timeout=120, check=False)
        until(lambda: not self.processes.remaining(), 5)
        for pid in self.processes.remaining():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def tell(story: Story) -> None:
    say, nexus, check = story.chapter, story.nexus, story.check

    say("1. Create a sandbox: no daemon, no server, one command")
    nexus("sandbox", "create", "demo", "--ttl", "5")
    status = json.loads(nexus("sandbox", "status", "demo", "--json", quiet=True))
    check(f"it is {status['status']}, on the embedded default", true=status["status"] == "active")
    check("the provider is `local`", true=status["provider"] == "local")
    check("it lives on after the command that made it", true=story.processes.look())

    say("2. Three languages")
    python = nexus("sandbox", "run", "demo", "-c", "import sys; print('Python', sys.version.split()[0], 2 + 2)")
    check("python ran", true=python.startswith("Python 3.") and python.endswith(" 4\n"))
    javascript = nexus(
        "sandbox", "run", "demo", "-l", "javascript", "-c", "-", stdin="console.log([1, 2].map(x => x * 2))"
    )
    check("javascript ran, from standard input", true=javascript == "[ 2, 4 ]\n")
    bash = nexus("sandbox", "run", "demo", "-l", "bash", "-c", "echo $USER in $PWD; exit 3", status=3)
    check("bash ran, and its exit status came through", true=bash == "user in /home/user\n")
    pandas = nexus(
        "sandbox", "run", "demo", "-c", "import pandas as pd; print(pd.DataFrame({'a': [1, 2, 3]}).a.mean())"
    )
    check("pandas is there for data", true=pandas == "2.0\n")

    say("3. A time-out that really kills")
    # An argument that nothing else on this machine has, so that the process can be found from outside.
    mark = f"9{os.getpid()}.{time.time_ns() % 1000}"
    runaway = f"import subprocess; subprocess.Popen(['sleep', '{mark}'], start_new_session=True).wait()"
    begun = story.begin("sandbox", "run", "demo", "--timeout", "2", "-c", runaway)
    there = until(lambda: running(mark), 20)
    check(f"while it runs, this machine has a process `sleep {mark}`", true=there)
    said = story.end(begun, 124)
    check("it was told so, with exit status 124", true="Code execution exceeded 2 second timeout" in said)
    check(f"`sleep {mark}` is gone, although it had left its session", true=until(lambda: not running(mark), 1))
    again = nexus("sandbox", "run", "demo", "-c", "print('still usable')")
    check("the sandbox is as usable as before", true=again == "still usable\n")

    say("4. Pause and resume")
    nexus("sandbox", "run", "demo", "-c", "open('note.txt', 'w').write('kept over the pause')", quiet=True)
    nexus("sandbox", "pause", "demo")
    nexus("sandbox", "run", "demo", "-c", "print(1)", status=6)
    check("a paused sandbox runs nothing, and says why", true=True)
    nexus("sandbox", "resume", "demo")
    kept = nexus("sandbox", "run", "demo", "-c", "print(open('note.txt').read())")
    check("its files are still there", true=kept == "kept over the pause\n")

    say("5. What is there")
    nexus("sandbox", "create", "second", "--network", "none", "--label", "team=data")
    listed = nexus("sandbox", "list")
    check("both are listed", true="demo" in listed and "second" in listed)
    nexus("sandbox", "status", "demo")

    say("6. What happened: every event, in order")
    nexus("events", "list", "demo")
    history = json.loads(nexus("events", "list", "demo", "--json", quiet=True))
    topics = [event["type"] for event in history["events"]]
    check("from the request on", true=topics[:2] == ["sandbox.requested", "sandbox.started"])
    check("with the run that was killed", true=topics.count("execution.timed_out") == 1)
    ends = sum(topics.count(f"execution.{end}") for end in ("finished", "timed_out", "lost"))
    check(f"and one outcome for each of {ends} runs", true=topics.count("execution.started") == ends)

    say("7. Stop")
    story.processes.look()
    nexus("sandbox", "stop", "demo", "second")
    left = json.loads(nexus("sandbox", "list", "--json", quiet=True))["sandboxes"]
    check("nothing is listed any more", true=left == [])
    check(
        f"none of the {len(story.processes.seen)} processes that were seen is left",
        true=until(lambda: not story.processes.remaining(), 5),
    )
    mounted = str(story.folder) in Path("/proc/self/mountinfo").read_text()
    check("nothing is left mounted", true=not mounted)


def interrupted(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def main() -> int:
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGHUP, interrupted)
    folder = Path(tempfile.mkdtemp(prefix="nexus-demo-"))
    story = Story(folder)
    try:
        tell(story)
    except Untrue as untrue:
        print(f"\n{RED}✗ not as told:{PLAIN} {untrue}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        story.clean_up()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{BOLD}{story.checks} claims, all true; nothing is left running.{PLAIN}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
