"""Making one program of the guest's modules: for an inherited descriptor (local), or as a `python -c` argument (containers).

Source is always part of it; code compiled by the manager's own interpreter comes along for a guest with the same one and saves it the
compiling, most of the time that a start takes.
"""

from __future__ import annotations

import base64
import functools
import importlib.util
import marshal
import struct
import zlib
from collections.abc import Mapping
from importlib.resources import files
from types import CodeType

PACKAGE = "nexus.adapters.agent.guest"
MODULES = (
    "frames", "kernel", "sweep", "confine", "fileops", "script", "zygote", "child", "languages", "run", "server", "prepare", "main",
)  # fmt: skip
"""In the order in which they need each other."""
LENGTH = struct.Struct("=I")
_MARSHAL_VERSION = 2  # which every Python reads

_BOOT = """
import sys, marshal, _frozen_importlib_external as external
def boot(package, payload, entry, *arguments):
    modules, made = marshal.loads(payload), type(sys)(package)
    made.__path__ = []
    sys.modules[package] = made
    for name, source, code in modules[1]:
        module = type(sys)(package + '.' + name)
        module.__package__ = package
        sys.modules[module.__name__] = module
        setattr(made, name, module)
        same = code is not None and modules[0] == external.MAGIC_NUMBER
        exec(marshal.loads(code) if same else compile(source, package + '.' + name, 'exec'), module.__dict__)
        if name == 'script': text = source
    getattr(made.main, entry)(*arguments, text)
"""

LOCAL_BOOT = (
    _BOOT
    + """
import os
channel = int(sys.argv[1])
def take():
    parts, missing = [], int.from_bytes(os.read(channel, 4), sys.byteorder)
    while missing:
        part = os.read(channel, missing)
        if not part: os._exit(1)
        parts.append(part)
        missing -= len(part)
    return b''.join(parts)
"""
    + f"boot({PACKAGE!r}, take(), 'local', marshal.loads(take()), channel)"
)
"""The `python -c` text of a local agent; its one argument is the number of the birth channel, from which it reads itself."""


@functools.cache
def program(with_code: bool = True) -> bytes:
    """The bundled modules as bytes for the boot text."""
    return marshal.dumps(
        (importlib.util.MAGIC_NUMBER, [_module(name, with_code) for name in MODULES]), _MARSHAL_VERSION
    )


def _module(name: str, with_code: bool) -> tuple[str, str, bytes | None]:
    source = files(PACKAGE).joinpath(name + ".py").read_text(encoding="utf-8")
    return name, source, marshal.dumps(_code(name)) if with_code else None


def _code(name: str) -> CodeType:
    spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
    get_code = getattr(spec.loader, "get_code", None) if spec else None
    code = get_code(f"{PACKAGE}.{name}") if get_code else None  # the cached one, if there is
    assert isinstance(code, CodeType)
    return code


def birth(config: Mapping[str, object]) -> bytes:
    """What a local agent reads from its birth channel first."""
    body, settings = program(), marshal.dumps(dict(config), _MARSHAL_VERSION)
    return LENGTH.pack(len(body)) + body + LENGTH.pack(len(settings)) + settings


def container_script(config: Mapping[str, object]) -> str:
    """A self-contained `python3 -c` text for a container's main process; restarting the container restarts the agent.

    `config` is as in `guest.main.stdio` and is legible to whoever may inspect the container: no secrets. About 40 KB: within
    the 128 KiB that Linux allows one argument.
    """
    body = base64.b85encode(zlib.compress(program(with_code=False), 9)).decode()
    settings = marshal.dumps(dict(config), _MARSHAL_VERSION)
    return f"{_BOOT}\nimport zlib, base64\nboot({PACKAGE!r}, zlib.decompress(base64.b85decode({body!r})), 'stdio', marshal.loads({settings!r}))"
