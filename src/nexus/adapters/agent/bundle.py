"""Making one program of the guest's modules: for an inherited descriptor (local), a file or variables (containers).

Source is always part of it; code compiled by the manager's own interpreter comes along for a guest with the same one
and saves it the compiling, most of the time that a start takes.
"""

from __future__ import annotations

import binascii
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
    "frames", "kernel", "sweep", "confine", "fileops", "script", "ending", "zygote", "session", "child", "languages",
    "peers", "operation", "nursery", "watching", "desk", "server", "routing", "prepare", "main",
)  # fmt: skip
"""In the order in which they need each other."""
LENGTH = struct.Struct("=I")
UNFIT = 97
"""Exit code of a container's agent that this Python cannot run: too old, or with modules left out."""
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

_LOCAL_BOOT = (
    _BOOT
    + """
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
).encode()
BORN = b"B"
"""What a local agent says first: bubblewrap has done its part."""
LOCAL_COMMAND = (
    f"import os, sys; channel = int(sys.argv[1]); os.write(channel, {BORN!r}); "
    "import ctypes, resource, fcntl, _socket; exec(os.read(channel, int(sys.argv[2])))"
)
"""The `python -c` text of a local agent, before `local_arguments`: short, since every `ps` in the sandbox shows it."""


_VARIABLE = "NEXUS_AGENT_"
_CONTAINER_BOOT = (
    f"""
import os, sys
if sys.version_info < (3, 9): os._exit({UNFIT})
try: import ctypes
except ImportError: os._exit({UNFIT})
"""
    + _BOOT
)
_FROM_ENVIRONMENT = f"""
import binascii, zlib
source, settings = [binascii.a2b_base64(os.environ.pop({_VARIABLE!r} + name)) for name in ('SOURCE', 'CONFIG')]
boot({PACKAGE!r}, zlib.decompress(source), 'container', marshal.loads(settings))
"""


def local_arguments(birth: int) -> list[str]:
    """The arguments after `LOCAL_COMMAND`; `birth` is the channel from which the agent reads itself."""
    return [str(birth), str(len(_LOCAL_BOOT))]


@functools.cache
def program() -> bytes:
    """The bundled modules as bytes for the boot text."""
    return marshal.dumps((importlib.util.MAGIC_NUMBER, _modules()), _MARSHAL_VERSION)


def _modules() -> list[tuple[str, str, bytes | None]]:
    """Name, source and compiled code of each."""
    sources = files(PACKAGE)
    return [
        (name, sources.joinpath(name + ".py").read_text(encoding="utf-8"), marshal.dumps(_code(name)))
        for name in MODULES
    ]


def _code(name: str) -> CodeType:
    spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
    get_code = getattr(spec.loader, "get_code", None) if spec else None
    code = get_code(f"{PACKAGE}.{name}") if get_code else None  # the cached one, if there is
    assert isinstance(code, CodeType)
    return code


def birth(config: Mapping[str, object]) -> bytes:
    """What a local agent reads from its birth channel first."""
    body, settings = program(), marshal.dumps(dict(config), _MARSHAL_VERSION)
    return _LOCAL_BOOT + LENGTH.pack(len(body)) + body + LENGTH.pack(len(settings)) + settings


def container_file(config: Mapping[str, object], path: str) -> tuple[tuple[str, ...], bytes]:
    """The main process of a container that has a file at `path`: its arguments, and what the file holds.

    `config` is as in `guest.main.container`. Starting the container again starts the agent again.
    """
    boot = f"{_CONTAINER_BOOT}\nboot({PACKAGE!r}, taken[0], 'container', taken[1])"
    told = (boot, (program(), dict(config)))
    command = f"import marshal; boot, taken = marshal.load(open({path!r}, 'rb')); exec(boot)"
    return ("python3", "-I", "-c", command), marshal.dumps(told, _MARSHAL_VERSION)


def container_command(config: Mapping[str, object]) -> tuple[tuple[str, ...], dict[str, str]]:
    """As `container_file`, for a container that shares no file with this machine: everything is in its environment.

    Not in the arguments, because every `ps` in the sandbox would show it. Legible to whoever may inspect the container:
    no secrets. Each value is well below the 128 KiB that Linux allows for one.
    """
    settings = _text_of(marshal.dumps(dict(config), _MARSHAL_VERSION))
    env = {"BOOT": _CONTAINER_BOOT + _FROM_ENVIRONMENT, "SOURCE": _packed_source(), "CONFIG": settings}
    command = f"import os; exec(os.environ.pop('{_VARIABLE}BOOT'))"
    return ("python3", "-I", "-c", command), {_VARIABLE + name: value for name, value in env.items()}


@functools.cache
def relay_command(socket: str) -> tuple[str, ...]:
    """A process beside a container's agent that connects its standard streams with the agent's socket."""
    text = files(PACKAGE).joinpath("relay.py").read_text(encoding="utf-8")
    return ("python3", "-I", "-S", "-c", text + "\nimport sys\nrelay(sys.argv[1])\n", socket)


@functools.cache
def _packed_source() -> str:
    sources = [(name, source, None) for name, source, _ in _modules()]
    return _text_of(zlib.compress(marshal.dumps((importlib.util.MAGIC_NUMBER, sources), _MARSHAL_VERSION), 9))


def _text_of(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()
