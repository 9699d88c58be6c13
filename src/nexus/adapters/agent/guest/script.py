"""Runs Python source the way `python file` does.

Also the text given to `python -c` for a fresh interpreter, hence self-contained.
"""

import sys


def run(path, main=None):  # type: ignore[no-untyped-def]
    """Execute the file in `__main__`, a new one unless it is given.

    What it did not catch was shown already when it goes on from here as SystemExit or KeyboardInterrupt.
    """
    main = main or type(sys)("__main__")
    main.__dict__.update(__file__=path, __cached__=None, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    sys.argv[:] = [path]
    sys.orig_argv = [sys.executable, path]
    # A killed program loses at most an unfinished line of what it printed.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    try:
        with open(path, "rb") as file:
            source = file.read()
        exec(compile(source, path, "exec"), main.__dict__)
    except SystemExit:
        raise
    except BaseException as error:
        # As the interpreter itself would show it: from the user's first frame on.
        rest = error.__traceback__.tb_next if error.__traceback__ else None
        error = error.with_traceback(rest)
        sys.excepthook(type(error), error, rest)
        if isinstance(error, KeyboardInterrupt):
            sys.excepthook = lambda *_: None
            raise  # the interpreter ends by the signal
        raise SystemExit(1) from None
