"""Checks of what comes from outside. Each returns the value to use or raises `InvalidInput` that says what to do.

Strict on purpose: `True` is not a number, `"10"` is not ten, and a name that could be mistaken for another, for an
option or for a path is refused. Nothing is recorded before all checks have passed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from nexus.domain.errors import InvalidInput
from nexus.domain.provider import Limits
from nexus.domain.values import LANGUAGES

MAX_NAME = 63
MAX_LABELS = 32
MAX_LABEL_VALUE = 255
MAX_ENV = 128
MAX_ENV_BYTES = 128 * 1024
MAX_KEY = 255
MAX_PATH = 4096
MAX_SAID = 2000
"""Characters that an event keeps of a message from outside."""
RESERVED_PREFIX = "nexus."

_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9 ._-]*[a-zA-Z0-9._-])?")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,254}")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SANDBOX_ID = re.compile(r"sb_[0-9a-f]{32}")
_EXECUTION_ID = re.compile(r"ex_[0-9a-f]{32}")


def shown(value: object, limit: int = 60) -> str:
    """A value as it may be quoted in a message: one line, escaped, cut."""
    text = ascii(value) if isinstance(value, str) else type(value).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def said(text: str, limit: int = MAX_SAID) -> str:
    """What a provider said, as text that every store takes: no outcome may be lost to a stray byte or to a flood."""
    whole = text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return whole if len(whole) <= limit else whole[: limit - 1] + "…"


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"The {what} must be text, not {type(value).__name__}", field=what)
    return value


def choice(value: Any, what: str) -> bool | None:
    """True, False, or None for what was not said; nothing that merely looks like one of them."""
    if value is None or isinstance(value, bool):
        return value
    raise InvalidInput(f"The {what} must be true or false, not {shown(value)}", field=what)


def name(value: Any) -> str:
    """A sandbox name: 1 to 63 characters of a-z A-Z 0-9 space . _ -, beginning with a letter or digit."""
    text = _text(value, "name")
    if not text.strip():
        raise InvalidInput("The name is empty", hint="Give a name such as 'data-analysis'.", field="name")
    if len(text) > MAX_NAME:
        raise InvalidInput(f"The name has {len(text)} characters; at most {MAX_NAME} are allowed", field="name")
    if _NAME.fullmatch(text) is None:
        raise InvalidInput(
            f"The name {shown(text)} is not allowed",
            hint="Use ASCII letters, digits, spaces, '.', '_' and '-'; begin with a letter or digit.",
            field="name",
        )
    return text


def whole(value: Any, what: str, unit: str, lowest: int, highest: int) -> int:
    """A whole number within bounds; booleans, fractions and numbers in strings are refused."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(
            f"The {what} must be a whole number of {unit}, not {shown(value)}",
            hint=f"Give {lowest} to {highest}.",
            field=what,
        )
    if not lowest <= value <= highest:
        seen = str(value) if abs(value) < 10**12 else "a number"
        raise InvalidInput(
            f"The {what} of {seen} {unit} is out of range", hint=f"Give {lowest} to {highest}.", field=what
        )
    return value


def ttl_minutes(value: Any, highest: int) -> int:
    return whole(value, "ttl", "minutes", 1, highest)


def timeout(value: Any, highest: int) -> int:
    return whole(value, "timeout", "seconds", 1, highest)


def language(value: Any) -> str:
    """One of the known languages, spelled exactly."""
    if not isinstance(value, str) or value not in LANGUAGES:
        raise InvalidInput(
            f"Unknown language {shown(value)}", hint=f"Known languages: {', '.join(LANGUAGES)}.", field="language"
        )
    return value


def code(value: Any, highest: int) -> bytes:
    """Source code as bytes; text becomes UTF-8. Empty code is fine."""
    if isinstance(value, str):
        if len(value) > highest:
            raise _too_large(len(value), highest)
        try:
            value = value.encode()
        except UnicodeEncodeError:
            raise InvalidInput("The code is not valid Unicode text: it holds a lone surrogate", field="code") from None
    if not isinstance(value, bytes):
        raise InvalidInput(f"The code must be text or bytes, not {type(value).__name__}", field="code")
    if len(value) > highest:
        raise _too_large(len(value), highest)
    if b"\0" in value:
        raise InvalidInput("The code holds a NUL character", field="code")
    return value


def _too_large(size: int, highest: int) -> InvalidInput:
    return InvalidInput(
        f"The code has {size} bytes; at most {highest} are allowed",
        hint="Copy large data into the sandbox as a file (`nexus sandbox cp`) and read it from there.",
        field="code",
    )


def argv(value: Any) -> tuple[str, ...]:
    """A command as a list of arguments."""
    sequence = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if not sequence or not all(isinstance(part, str) for part in value):
        raise InvalidInput("The command must be a list of text arguments", field="argv")
    parts = tuple(value)
    if not parts or not parts[0]:
        raise InvalidInput("The command is empty", field="argv")
    if any("\0" in part for part in parts):
        raise InvalidInput("The command holds a NUL character", field="argv")
    if sum(len(part) for part in parts) > 64 * 1024:
        raise InvalidInput("The command is longer than 64 KiB", field="argv")
    try:
        "".join(parts).encode()
    except UnicodeEncodeError:
        raise InvalidInput("The command is not valid Unicode text", field="argv") from None
    return parts


def identifier(value: Any, what: str) -> str:
    """A template, image or provider name."""
    text = _text(value, what)
    if _IDENTIFIER.fullmatch(text) is None:
        raise InvalidInput(
            f"The {what} {shown(text)} is not allowed",
            hint="Use ASCII letters, digits and . _ : / @ -; begin with a letter or digit.",
            field=what,
        )
    return text


def idempotency_key(value: Any) -> str:
    """1 to 255 printable ASCII characters."""
    text = _text(value, "idempotency key")
    if not 1 <= len(text) <= MAX_KEY or not text.isascii() or not text.isprintable():
        raise InvalidInput(
            "The idempotency key is not allowed", hint=f"Use 1 to {MAX_KEY} printable ASCII characters.", field="key"
        )
    return text


def labels(value: Mapping[Any, Any] | None) -> dict[str, str]:
    """At most 32 labels; keys beginning with `nexus.` are the system's own."""
    if not isinstance(value, Mapping | None):
        raise InvalidInput("The labels must be a mapping of text to text", field="labels")
    result: dict[str, str] = {}
    for key, text in (value or {}).items():
        if not isinstance(key, str) or _LABEL.fullmatch(key) is None:
            raise InvalidInput(f"The label name {shown(key)} is not allowed", field="labels")
        if key.startswith(RESERVED_PREFIX):
            raise InvalidInput(f"Label names that begin with '{RESERVED_PREFIX}' are reserved", field="labels")
        if not isinstance(text, str) or len(text) > MAX_LABEL_VALUE or not text.isprintable():
            raise InvalidInput(
                f"The value of label {key} is not allowed",
                hint=f"Use at most {MAX_LABEL_VALUE} printable characters.",
                field="labels",
            )
        result[key] = text
    if len(result) > MAX_LABELS:
        raise InvalidInput(f"{len(result)} labels were given; at most {MAX_LABELS} are allowed", field="labels")
    return result


def env(value: Mapping[Any, Any] | None) -> dict[str, str]:
    """Environment variables. Their values are never quoted in an error."""
    if not isinstance(value, Mapping | None):
        raise InvalidInput("The environment must be a mapping of text to text", field="env")
    result: dict[str, str] = {}
    size = 0
    for key, text in (value or {}).items():
        if not isinstance(key, str) or _ENV.fullmatch(key) is None:
            raise InvalidInput(
                f"The variable name {shown(key)} is not allowed",
                hint="Use letters, digits and '_'; begin with a letter or '_'.",
                field="env",
            )
        if not isinstance(text, str) or "\0" in text:
            raise InvalidInput(f"The value of variable {key} is not allowed: text without NUL is", field="env")
        try:
            size += len(key) + len(text.encode())
        except UnicodeEncodeError:
            raise InvalidInput(f"The value of variable {key} is not valid Unicode text", field="env") from None
        result[key] = text
    if len(result) > MAX_ENV or size > MAX_ENV_BYTES:
        raise InvalidInput(
            f"The environment is too large: at most {MAX_ENV} variables of {MAX_ENV_BYTES} bytes together", field="env"
        )
    return result


_LIMITS = {
    "memory_mb": ("MiB", 4, 16 * 1024 * 1024),
    "processes": ("processes", 1, 4_194_304),
    "disk_mb": ("MiB", 1, 2**30),
}
_MAX_CPUS = 4096.0


def limits(value: Any) -> Limits:
    """Resource limits; None in one of them leaves the provider's own."""
    if not isinstance(value, Limits):
        raise InvalidInput(f"The limits must be a Limits, not {type(value).__name__}", field="limits")
    for what, (unit, lowest, highest) in _LIMITS.items():
        if getattr(value, what) is not None:
            whole(getattr(value, what), what, unit, lowest, highest)
    cpus: Any = value.cpus
    if cpus is not None and (isinstance(cpus, bool) or not isinstance(cpus, int | float) or not 0 < cpus <= _MAX_CPUS):
        raise InvalidInput("The limit cpus is out of range", hint="Give a number such as 2 or 0.5.", field="cpus")
    return value


def guest_path(value: Any) -> str:
    """A path inside the sandbox; it is resolved there and nowhere else."""
    text = _text(value, "path")
    if not text or len(text) > MAX_PATH or "\0" in text:
        raise InvalidInput(
            f"The path {shown(text)} is not allowed", hint=f"Give 1 to {MAX_PATH} characters without NUL.", field="path"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput("The path is not valid Unicode text", field="path") from None
    return text


def is_sandbox_id(text: str) -> bool:
    """Whether this is a whole sandbox id in its one canonical form."""
    return _SANDBOX_ID.fullmatch(text) is not None


def is_execution_id(text: str) -> bool:
    """Whether this is an execution's id in its one canonical form."""
    return _EXECUTION_ID.fullmatch(text) is not None
