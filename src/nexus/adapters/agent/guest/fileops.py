"""Reading and writing one file inside the guest, as the user, in a process of its own.

Runs in a confined child (`zygote.py`): content goes through descriptors 0 and 1, the outcome as fields to descriptor 2.
"""

from __future__ import annotations

import errno
import os
import stat

from nexus.adapters.agent.guest import frames

_CHUNK = 65536
_CODES = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_found",
    errno.EISDIR: "refused",
    errno.ENXIO: "refused",
    errno.EACCES: "refused",
    errno.EPERM: "refused",
    errno.EROFS: "refused",
    errno.ELOOP: "refused",
    errno.ENAMETOOLONG: "invalid",
    errno.ENOSPC: "too_large",
    errno.EFBIG: "too_large",
    errno.EDQUOT: "too_large",
}


class _Refused(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def perform(operation: str, path: str, limit: int) -> None:
    """Do it and report `{size}` or `{code, message}`; never raises."""
    try:
        if not path or "\0" in path:
            raise _Refused("invalid", "not a path")
        size = _read(path, limit) if operation == "read" else _write(path, limit)
        outcome: dict[str, object] = {"size": size}
    except _Refused as refusal:
        outcome = {"code": refusal.code, "message": str(refusal)}
    except (OSError, ValueError) as error:
        number = error.errno if isinstance(error, OSError) else None
        outcome = {
            "code": "invalid" if not number else _code(operation, number),
            "message": os.strerror(number) if number else "not a path",
        }
    os.write(2, frames.pack(outcome))


def _code(operation: str, number: int) -> str:
    if operation == "write" and number in (errno.ENOTDIR, errno.EEXIST):
        return "refused"  # a file stands where a folder would have to be
    return _CODES.get(number, "failed")


def _read(path: str, limit: int) -> int:
    # O_NONBLOCK: opening a FIFO without a writer would wait for ever.
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    _require_file(os.fstat(source).st_mode)
    if os.fstat(source).st_size > limit:
        raise _Refused("too_large", f"the file is larger than {limit} bytes")
    size = 0
    while True:
        chunk = os.read(source, _CHUNK)
        size += len(chunk)
        if size > limit:  # it grows while it is read, or is one of /proc that gives no size
            raise _Refused("too_large", f"the file is larger than {limit} bytes")
        if not chunk:
            return size
        _write_all(1, chunk)


def _write(path: str, limit: int) -> int:
    target = os.path.realpath(path)  # replacing the link itself would surprise whoever made it
    mode = 0o644
    try:
        there = os.stat(target)
        _require_file(there.st_mode)
        mode = stat.S_IMODE(there.st_mode)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), exist_ok=True)
    if path.endswith("/"):
        raise _Refused("refused", "that is a folder")
    folder, name = os.path.split(target)
    draft = os.path.join(folder, f".{name[:200]}.{os.getpid()}")
    file, named = _open_draft(folder, draft)
    size = 0
    try:
        while True:
            chunk = os.read(0, _CHUNK)
            if not chunk:
                break
            size += len(chunk)
            if size > limit:
                raise _Refused("too_large", f"more than {limit} bytes")
            _write_all(file, chunk)
        os.fchmod(file, mode)
        if not named:
            # With a (meaningless) folder given, Python calls linkat, which alone follows the link.
            os.link(f"/proc/self/fd/{file}", draft, src_dir_fd=file, follow_symlinks=True)
            named = True
        os.rename(draft, target)
    except BaseException:
        if named:
            os.unlink(draft)
        raise
    return size


def _open_draft(folder: str, draft: str) -> tuple[int, bool]:
    """A file to fill, and whether it has a name: one without leaves nothing behind when this process is killed."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600), False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    return os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), True


def _require_file(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise _Refused("refused", "that is a folder")
    if not stat.S_ISREG(mode):
        raise _Refused("refused", "that is not a regular file")


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
