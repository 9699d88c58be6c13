"""Runs one command and is the end of everything that it starts: `python -I -S reaper.py STATUS_FD COMMAND…`.

A subreaper: daemons of the command become its children, so that none escapes. On SIGTERM, or when the command ends, it
kills what is left. The wait status of the command goes to STATUS_FD.
"""

import ctypes
import os
import pathlib
import signal
import sys

PR_SET_CHILD_SUBREAPER = 36


def descendants() -> set[int]:
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state not in "ZX":
                parents[int(entry.name)] = int(parent)
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found - {os.getpid()}


def kill_all() -> None:
    while doomed := descendants():
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def main() -> None:
    status_fd, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and what it starts would do so too
        os.close(status_fd)
        try:
            os.execvp(command[0], command)
        except FileNotFoundError:
            os.write(2, f"{command[0]}: not found\n".encode())
            os._exit(127)
    while signal.sigwait({signal.SIGTERM, signal.SIGCHLD}) == signal.SIGCHLD:
        pid, status = os.waitpid(-1, os.WNOHANG)
        while pid not in (0, child):
            pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            os.write(status_fd, str(status).encode())
            break
    kill_all()


main()
