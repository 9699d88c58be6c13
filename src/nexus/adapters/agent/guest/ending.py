"""Ending a program that ran in a forked interpreter as the interpreter would, without taking that apart.

Py_Finalize in a fork touches, hence copies, most of the memory that it shares with its parent: half of the time of a
short run. What it does that a program can notice is done here; where more might be noticed, the interpreter does it
after all.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import sys

_exit = ctypes.PyDLL(None).exit
"""The C library's: runs its own exit handlers and flushes its own buffers, which `os._exit` does not."""


def leave(reason: SystemExit | None, own: tuple[str, ...], known: set[str]) -> None:
    """Leave the process with the code of `reason`. Returns when the interpreter has to do it: the caller raises then.

    `known` are the modules that the interpreter had before the program, `own` the folders where the user's are. One
    of those may hold, say, an open file, which only the interpreter would close.
    """
    code = _code(reason)
    if code is None or any(_file(name).startswith(own) for name in sys.modules.keys() - known):
        return
    threading = sys.modules.get("threading")
    if threading is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    _clear(sys.modules["__main__"].__dict__)
    gc.collect()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except (OSError, ValueError):
        return  # the interpreter knows what to say of it
    _exit(code)


def _code(reason: SystemExit | None) -> int | None:
    if reason is None or reason.code is None:
        return 0
    return reason.code & 0xFF if isinstance(reason.code, int) else None


def _file(name: str) -> str:
    file = getattr(sys.modules.get(name), "__file__", None) if name != "__main__" else None
    return file if isinstance(file, str) else ""


def _clear(namespace: dict[str, object]) -> None:
    """Let go of what its names hold, in the interpreter's order: files are closed and finalizers run."""
    for private in (True, False):
        for name in list(namespace):
            if name != "__builtins__" and (name[:1] == "_" and name[:2] != "__") == private:
                namespace[name] = None
