"""Input that must be refused, as data: what is wrong with it, and the words that show it.

Each row goes through every door that can express it. Rows of text go through both, typed ones through Python alone.
"""

from __future__ import annotations

from typing import Any, Final

NAMES: Final[dict[str, str]] = {
    "empty": "",
    "blank": "   ",
    "64 characters": "a" * 64,
    "100,000 characters": "a" * 100_000,
    "parent folder": "../x",
    "path": "a/b",
    "backslash": "a\\b",
    "option": "-x",
    "begins with a dot": ".hidden",
    "begins with a space": " a",
    "ends with a space": "a ",
    "NUL": "a\0b",
    "newline": "a\nb",
    "ends with a newline": "a\n",
    "return": "a\rb",
    "tab": "a\tb",
    "colour": "a\x1b[31mb",
    "terminal title": "\x1b]0;pwned\x07",
    "right to left": "a\u202egpj.exe",
    "zero width": "a\u200bb",
    "cyrillic lookalike": "p\u0430ypal",
    "accent": "café",
    "full width": "\uff41bc",
    "emoji": "box😀",
    "arabic digit": "a\u0663",
    "lone surrogate": "a\udcff",
    "SQL": "'; DROP TABLE sandboxes; --",
    "formula": "=cmd()",
    "shell": "$(reboot)",
    "markup": "[red]a",
}

NOT_NUMBERS: Final[dict[str, str]] = {
    "empty": "",
    "blank": " ",
    "word": "ten",
    "NaN": "nan",
    "infinity": "inf",
    "minus infinity": "-inf",
    "fraction": "1.5",
    "whole fraction": "10.0",
    "exponent": "1e3",
    "hexadecimal": "0x10",
    "underscore": "1_000",
    "spaces around": " 7 ",
    "plus": "+5",
    "arabic digits": "\u0661\u0662",
    "full width digits": "\uff11\uff12",
    "superscript": "²",
    "5,000 digits": "9" * 5000,
    "newline": "5\n",
    "NUL": "5\0",
    "boolean": "true",
    "unit": "10m",
    "thousands": "1,000",
}
OUT_OF_RANGE: Final[dict[str, str]] = {"zero": "0", "negative": "-1", "huge": "999999999999", "minus zero": "-0"}

NUMBERS_OF_OTHER_TYPES: Final[dict[str, Any]] = {
    "True": True,
    "False": False,
    "text": "10",
    "text with spaces": " 7 ",
    "fraction": 1.5,
    "whole float": 10.0,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "complex": 1j,
    "list": [10],
    "bytes": b"10",
    "zero": 0,
    "negative": -1,
    "huge": 10**9,
    "5,000 digits": 10**5000,
    "minus 5,000 digits": -(10**5000),
}

LANGUAGES: Final[dict[str, str]] = {
    "unknown": "ruby",
    "upper case": "PYTHON",
    "spaces": "python ",
    "empty": "",
    "path": "../python",
    "escape": "\x1b[31mpython",
    "lookalike": "pyth\u043en",
}

REFERENCES: Final[dict[str, str]] = {
    "empty": "",
    "unknown name": "nobody",
    "unknown id": "sb_" + "0" * 32,
    "upper case id": "SB_" + "0" * 32,
    "id with dashes": "sb_00000000-0000-0000-0000-000000000000",
    "urn": "{urn:uuid:00000000-0000-0000-0000-000000000000}",
    "too long": "sb_" + "0" * 33,
    "too short a beginning": "sb_0",
    "NUL": "sb_\0",
    "escape": "\x1b]0;x\x07",
    "wildcard": "sb_%",
    "SQL": "' OR '1'='1",
    "path": "../../etc/passwd",
    "lone surrogate": "\udcff",
    "100,000 characters": "x" * 100_000,
}

LABEL_NAMES: Final[dict[str, str]] = {
    "empty": "",
    "reserved": "nexus.owner",
    "space": "a b",
    "control": "a\x07",
    "too long": "a" * 64,
    "begins with a dash": "-a",
    "not ASCII": "é",
}
LABEL_VALUES: Final[dict[str, str]] = {
    "too long": "a" * 256,
    "one megabyte": "a" * 1_000_000,
    "newline": "a\nb",
    "NUL": "\0",
    "escape": "\x1b[31m",
    "right to left": "\u202e",
    "lone surrogate": "\udcff",
}

VARIABLE_NAMES: Final[dict[str, str]] = {
    "empty": "",
    "NUL": "A\0",
    "dash": "A-B",
    "begins with a digit": "1A",
    "space": "A B",
    "too long": "A" * 129,
    "not ASCII": "É",
}
VARIABLE_VALUES: Final[dict[str, str]] = {"NUL": "a\0b", "too large": "a" * 200_000, "lone surrogate": "\udcff"}

KEYS: Final[dict[str, str]] = {
    "empty": "",
    "too long": "k" * 256,
    "10 kB": "k" * 10_000,
    "NUL": "a\0",
    "escape": "\x1b",
    "newline": "a\n",
    "not ASCII": "é",
}

TEMPLATES: Final[dict[str, str]] = {
    "empty": "",
    "shell": "img;rm -rf /",
    "option": "-v",
    "long option": "--privileged",
    "space": "a b",
    "NUL": "a\0",
    "newline": "a\nb",
    "too long": "a" * 256,
}

PATHS: Final[dict[str, str]] = {"NUL": "/a\0b", "too long": "/" + "a" * 4097}

TEXT_OF_OTHER_TYPES: Final[dict[str, Any]] = {
    "None": None,
    "number": 5,
    "True": True,
    "bytes": b"box",
    "list": ["box"],
    "dict": {},
    "object": object(),
}
