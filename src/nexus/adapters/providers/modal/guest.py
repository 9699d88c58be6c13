"""What runs inside the sandbox: how a program is started there, found again, and killed. Pure text, POSIX shell.

A run begins as a shell that prepares it and then becomes the program, so nothing stands between the program and
Modal. The shell
- refuses an execution id that has begun before: a file per id in `~/.nexus` is the memory of that, and a cancel
  leaves one too, so that a run that arrives after its own cancel never begins;
- marks the run, so that everything it starts can be found: an environment variable, and a value of the resource
  limit RSS, which Linux has not enforced since 2.4 and which every child inherits, the daemon that gave itself a
  new session and an empty environment too;
- sets the sandbox's variables. Modal keeps none over a pause, so a pause writes them into `~/.nexus/env`, readable
  to root alone, where the snapshot takes them along: they appear in no event.

Code comes over stdin, before what the program itself reads there: arguments can be seen by all, and are short.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nexus.domain.errors import ProviderInvalidRequest, ProviderUnsupported
from nexus.domain.provider import RunRequest

MARK: Final = "NEXUS_RUN"
"""Environment variable that marks what a run has started."""
REFUSED: Final = 125
"""Exit code of a refused repeat, together with a word on stderr that only this attempt knows."""

_FOLDER: Final = '"${HOME:-/root}/.nexus"'
_PART_BYTES: Final = 100_000
_PARTS: Final = 8
"""One environment variable holds 128 KiB at most, so the text that sets ours may need several."""
_OURS: Final = "NEXUS_ENV"
_RUNS: Final = "NEXUS_VARS"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _all_parts(prefix: str) -> str:
    return "".join(f"${prefix}{n}" for n in range(_PARTS))


_FORGET: Final = " ".join(f"{prefix}{n}" for prefix in (_OURS, _RUNS) for n in range(_PARTS))

# Arguments: name of the memory, the word for a refusal, the limit in KiB, the program with its arguments.
_BEGIN: Final = f"""
nexus_dir={_FOLDER}
[ -d "$nexus_dir" ] || mkdir -p -m 700 "$nexus_dir" 2>/dev/null
set -C
if ! {{ true >"$nexus_dir/$1"; }} 2>/dev/null && [ -e "$nexus_dir/$1" ]; then printf %s "$2" >&2; exit {REFUSED}; fi
set +C
ulimit -m "$3" 2>/dev/null
[ ! -r "$nexus_dir/env" ] || . "$nexus_dir/env"
eval "{_all_parts(_OURS)}"
eval "{_all_parts(_RUNS)}"
unset nexus_dir {_FORGET}
shift 3
exec "$@"
"""

# Arguments: name of the memory, the mark, the limit in bytes. Says "never" when the run had not begun, and now cannot.
# It looks again until it finds nothing: what was killed cannot have forked any more, what had forked before is found.
_KILL: Final = f"""
nexus_dir={_FOLDER}
[ -d "$nexus_dir" ] || mkdir -p -m 700 "$nexus_dir" 2>/dev/null
set -C
if {{ true >"$nexus_dir/$1"; }} 2>/dev/null; then echo never; exit 0; fi
set +C
n=0
while [ "$n" -lt 500 ]; do
  n=$((n + 1)); pids=
  for file in $(grep -lsF -e "$2" -e " $3 " /proc/[0-9]*/environ /proc/[0-9]*/limits); do
    pid=${{file#/proc/}}; pid=${{pid%/*}}
    {{ read -r line </proc/$pid/stat; }} 2>/dev/null || continue
    case "${{line##*) }}" in [ZX]*) continue;; esac
    pids="$pids $pid"
  done
  [ -n "$pids" ] || exit 0
  kill -KILL $pids
done 2>/dev/null
exit 1
"""

# Arguments: the mark, the limit in bytes. Exit code 0: something of the run lives; 1: nothing does.
_LIVES: Final = """
for file in $(grep -lsF -e "$1" -e " $2 " /proc/[0-9]*/environ /proc/[0-9]*/limits); do
  pid=${file#/proc/}; pid=${pid%/*}
  { read -r line </proc/$pid/stat; } 2>/dev/null || continue
  case "${line##*) }" in [ZX]*) ;; *) exit 0;; esac
done
exit 1
"""

# Sets ours down for the snapshot. What an earlier pause has set down comes first, so that newer values win.
_KEEP: Final = f"""
umask 077
nexus_dir={_FOLDER}
[ -d "$nexus_dir" ] || mkdir -p "$nexus_dir" || exit
printf %s "{_all_parts(_OURS)}" >>"$nexus_dir/env"
"""

# Each loader reads exactly as many bytes as it is told (the last argument), leaving stdin to the program, and then
# behaves as the interpreter does with `-c`. Code that did not arrive whole is not run.
_PYTHON: Final = """
def nexus():
    import os, sys
    left, parts = int(sys.argv.pop()), []
    while left:
        part = os.read(0, min(left, 1 << 20))
        if not part:
            os._exit(125)
        parts.append(part)
        left -= len(part)
    ours = sys._getframe(), sys._getframe(1)
    def hook(kind, error, trace, show=sys.excepthook):
        while trace is not None and trace.tb_frame in ours:
            trace = trace.tb_next
        show(kind, error.with_traceback(trace), trace)
    sys.excepthook = hook
    del globals()["nexus"]
    return compile(b"".join(parts), "<string>", "exec")
exec(nexus())
"""
_JAVASCRIPT: Final = """
{
  const fs = require("fs");
  const code = Buffer.alloc(Number(process.argv.pop()));
  for (let at = 0; at < code.length; ) {
    let got;
    try { got = fs.readSync(0, code, at, code.length - at, null); }
    catch (error) { if (error.code === "EAGAIN") continue; throw error; }
    if (got === 0) process.exit(125);
    at += got;
  }
  const vm = require("vm");
  const importModuleDynamically = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;
  vm.runInThisContext(code.toString(), { filename: "[eval]", importModuleDynamically });
}
"""
# The shell itself can read from a pipe without reading too much, but only byte by byte; beyond a page `dd` is faster.
# All on one line, so that the code's own lines are counted from one.
_BASH: Final = (
    'if [ "$1" -le 4096 ]; then [ "$1" = 0 ] || LC_ALL=C read -r -N "$1" nexus || exit 125; '
    'else nexus=$(dd bs="$1" count=1 iflag=fullblock 2>/dev/null; printf x); '
    '[ "$(LC_ALL=C; echo ${#nexus})" = $(($1 + 1)) ] || exit 125; nexus=${nexus%x}; fi; '
    'shift; eval "unset nexus; $nexus"'
)

_LOADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "python": ("python3", "-c", _PYTHON),
    "javascript": ("node", "-e", _JAVASCRIPT),
    "bash": ("bash", "-c", _BASH, "bash"),
}
LANGUAGES: Final = tuple(_LOADERS)


@dataclass(frozen=True, slots=True)
class Marks:
    """How the processes of one execution are recognised, the same in every process that knows its id."""

    memory: str
    """Name of the file that remembers the execution."""
    variable: str
    """The mark as it stands in the environment."""
    limit_kib: int
    """The value of the limit. Larger than any memory, so it would not bind if it were enforced."""

    @classmethod
    def of(cls, execution_id: str) -> Marks:
        digest = hashlib.sha256(execution_id.encode()).hexdigest()
        return cls(digest[:32], f"{MARK}={digest[:32]}.", (1 << 48) + int(digest[:10], 16))


def begin(request: RunRequest, word: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment for `exec`. `word` is what a refused repeat says; nobody else may know it."""
    marks = Marks.of(request.execution_id)
    argv = ["sh", "-c", _BEGIN, "nexus", marks.memory, word, str(marks.limit_kib), *_program(request)]
    name, _, value = marks.variable.partition("=")
    return argv, {name: value, **_as_parts(_RUNS, assignments(request.env))}


def kill(execution_id: str) -> list[str]:
    """Arguments that kill everything that a run has started. Exit code 0: nothing of it lives."""
    marks = Marks.of(execution_id)
    return ["sh", "-c", _KILL, "nexus", marks.memory, marks.variable, str(marks.limit_kib * 1024)]


def lives(execution_id: str) -> list[str]:
    """Arguments that look for what a run has started. Exit code 0: there is something, 1: there is nothing."""
    marks = Marks.of(execution_id)
    return ["sh", "-c", _LIVES, "nexus", marks.variable, str(marks.limit_kib * 1024)]


def keep() -> list[str]:
    """Arguments that write the sandbox's variables where a snapshot takes them along."""
    return ["sh", "-c", _KEEP]


def sandbox_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of a sandbox, in the form that `begin` and `keep` read."""
    return _as_parts(_OURS, assignments(env))


def assignments(env: Mapping[str, str]) -> str:
    """Shell text that sets and exports these variables, whatever their values hold."""
    lines = []
    for name, value in env.items():
        if _NAME.fullmatch(name) is None or "\0" in value:
            raise ProviderInvalidRequest(f"Not an environment variable: {name!a}")
        quoted = value.replace("'", "'\\''")
        lines.append(f"export {name}='{quoted}'\n")
    return "".join(lines)


def _as_parts(prefix: str, text: str) -> dict[str, str]:
    parts: list[str] = []
    rest = text.encode()
    while rest:
        # Never cut within a character: the SDK takes text, not bytes.
        part = rest[:_PART_BYTES].decode(errors="ignore")
        parts.append(part)
        rest = rest[len(part.encode()) :]
    if len(parts) > _PARTS:
        raise ProviderInvalidRequest(f"The environment is too large for Modal ({len(text)} characters)")
    return {f"{prefix}{n}": part for n, part in enumerate(parts)}


def _program(request: RunRequest) -> list[str]:
    if (request.code is None) == (request.argv is None):
        raise ProviderInvalidRequest("A run is either code or a command: give one of the two")
    if request.argv is not None:
        if not request.argv or any("\0" in word for word in request.argv):
            raise ProviderInvalidRequest("This command cannot be executed")
        return list(request.argv)
    loader = _LOADERS.get(request.language)
    if loader is None:
        known = ", ".join(LANGUAGES)
        raise ProviderUnsupported(f"Modal sandboxes run {known}, not {request.language!a}")
    return [*loader, str(len(request.code or b""))]
