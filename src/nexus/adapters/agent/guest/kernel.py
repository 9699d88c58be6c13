"""The system calls that Python 3.9 has no name for, and the filter that user code runs under."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import ctypes
import os
import struct

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x08000000, 0x10000000, 0x20000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
MNT_DETACH = 2
CAP_NET_ADMIN = 12

_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 22, 36, 38
_CAPABILITY_VERSION_3 = 0x20080522

signals = _signal
"""The C half of `signal`, which itself imports `enum` and takes 4 ms."""
_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, name + ": " + os.strerror(number))


def _prctl(option: int, value: int) -> None:
    _call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def set_dumpable(yes: bool) -> None:
    """Whether others of its uid may trace this process and read its memory, environment and descriptors."""
    _prctl(_PR_SET_DUMPABLE, int(yes))


def become_subreaper() -> None:
    """Orphans among the descendants become children of this process instead of PID 1's."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def unshare(flags: int) -> None:
    _call("unshare", flags)


def setns(descriptor: int, kind: int) -> None:
    _call("setns", descriptor, kind)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def unmount(target: str) -> None:
    """Take the mount out of the tree; what is bound elsewhere stays."""
    _call("umount2", target.encode(), MNT_DETACH)


def make_read_only(path: str) -> None:
    """Make the mount at `path` read-only and keep set-uid programs and devices out of it."""
    mount("none", path, "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def give_up(capability: int) -> None:
    """Give up one capability, in this process and what it starts."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = ctypes.create_string_buffer(24)
    _call("capget", header, data)
    words = list(struct.unpack("=6I", data.raw))  # effective, permitted, inheritable: the low words, then the high ones
    at = capability // 32 * 3
    words[at : at + 3] = [word & ~(1 << capability % 32) for word in words[at : at + 3]]
    _call("capset", header, struct.pack("=6I", *words))


def drop_capabilities() -> None:
    """Give up every capability for good: none permitted, none to inherit, and no program gives any back."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _call("capset", header, bytes(24))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


# What user code may not call: (x86_64, aarch64). Everything here either makes a kernel interface reachable that has
# little to do with running programs and a history of holes, or looks into other processes. None where the
# architecture lacks the call.
_DENIED: tuple[tuple[int | None, int | None], ...] = (
    (101, 117),  # ptrace
    (103, 116),  # syslog
    (153, 58),  # vhangup
    (155, 41),  # pivot_root
    (161, 51),  # chroot
    (163, 89),  # acct
    (165, 40),  # mount
    (166, 39),  # umount2
    (167, 224),  # swapon
    (168, 225),  # swapoff
    (169, 142),  # reboot
    (172, None),  # iopl
    (173, None),  # ioperm
    (175, 105),  # init_module
    (176, 106),  # delete_module
    (179, 60),  # quotactl
    (246, 104),  # kexec_load
    (248, 217),  # add_key
    (249, 218),  # request_key
    (250, 219),  # keyctl
    (272, 97),  # unshare
    (298, 241),  # perf_event_open
    (303, 264),  # name_to_handle_at
    (304, 265),  # open_by_handle_at
    (308, 268),  # setns
    (310, 270),  # process_vm_readv
    (311, 271),  # process_vm_writev
    (312, 272),  # kcmp
    (313, 273),  # finit_module
    (320, 294),  # kexec_file_load
    (321, 280),  # bpf
    (323, 282),  # userfaultfd
    (425, 425),  # io_uring_setup
    (426, 426),  # io_uring_enter
    (427, 427),  # io_uring_register
    (428, 428),  # open_tree
    (429, 429),  # move_mount
    (430, 430),  # fsopen
    (431, 431),  # fsconfig
    (432, 432),  # fsmount
    (433, 433),  # fspick
    (438, 438),  # pidfd_getfd
    (442, 442),  # mount_setattr
    (443, 443),  # quotactl_fd
)
_ARCHITECTURES = {  # machine: (column above, audit architecture, clone, clone3, socket)
    "x86_64": (0, 0xC000003E, 56, 435, 41),
    "aarch64": (1, 0xC00000B7, 220, 435, 198),
}
_SOCKET_FAMILIES = (1, 2, 10, 16)  # unix, inet, inet6, netlink; not vsock, which no network namespace confines
_NEW_NAMESPACES = 0x7E020000
_X32_BIT = 0x40000000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENT_0 = 0, 4, 16


def system_call_filter(machine: str) -> bytes | None:
    """The filter program for a machine (`os.uname().machine`), or None for one that has no table here."""
    if machine not in _ARCHITECTURES:
        return None
    column, architecture, clone, clone3, socket = _ARCHITECTURES[machine]
    denied = [number for number in (row[column] for row in _DENIED) if number is not None]
    code: list[tuple[int, int, int | str, int | str]] = []  # (operation, operand, target if true, target if false)
    code.append((_LOAD, _ARCHITECTURE, 0, 0))
    code.append((_JUMP_EQUAL, architecture, 0, "nosys"))
    code.append((_LOAD, _NUMBER, 0, 0))
    code.append((_JUMP_AT_LEAST, _X32_BIT, "nosys", 0))
    code.extend((_JUMP_EQUAL, number, "deny", 0) for number in denied)
    code.append((_JUMP_EQUAL, clone3, "nosys", 0))  # its flags are in memory; the C library falls back to clone
    code.append((_JUMP_EQUAL, clone, "clone", 0))
    code.append((_JUMP_EQUAL, socket, "socket", "allow"))
    labels = {"clone": len(code)}
    code.append((_LOAD, _ARGUMENT_0, 0, 0))
    code.append((_JUMP_SET, _NEW_NAMESPACES, "deny", "allow"))
    labels["socket"] = len(code)
    code.append((_LOAD, _ARGUMENT_0, 0, 0))
    code.extend((_JUMP_EQUAL, family, "allow", 0) for family in _SOCKET_FAMILIES)
    code.append((_RETURN, _ERRNO | _EAFNOSUPPORT, 0, 0))
    for label, answer in (("deny", _ERRNO | _EPERM), ("nosys", _ERRNO | _ENOSYS), ("allow", _ALLOW)):
        labels[label] = len(code)
        code.append((_RETURN, answer, 0, 0))
    out = b""
    for at, (operation, operand, true, false) in enumerate(code):
        jumps = [labels[x] - at - 1 if isinstance(x, str) else x for x in (true, false)]
        out += struct.pack("=HBBI", operation, jumps[0], jumps[1], operand)
    return out


def install_filter(program: bytes) -> None:
    """Put this process and all its children under `program`; needs no_new_privs."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    _call("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(2), header, ctypes.c_ulong(0), ctypes.c_ulong(0))
