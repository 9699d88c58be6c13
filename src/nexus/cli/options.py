"""Options and argument types that several commands share. Numbers are strict: ASCII digits, whole, bounded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from nexus.cli.session import Session
from nexus.domain.errors import InvalidInput, NexusError
from nexus.domain.validation import shown

F = TypeVar("F", bound=Callable[..., Any])

_WHOLE: Final = re.compile(r"-?[0-9]{1,12}", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,3})?", re.ASCII)


class Whole(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A whole number. Bounds that settings can change are checked by the engine, fixed ones here."""

    name = "number"

    def __init__(self, unit: str, lowest: int | None = None, highest: int | None = None) -> None:
        self._unit, self._lowest, self._highest = unit, lowest, highest

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        if _WHOLE.fullmatch(value) is None:
            self.fail(f"{shown(value)} is not a whole number of {self._unit}.", param, ctx)
        number = int(value)
        if self._lowest is not None and number < self._lowest:
            self.fail(f"{number} is too small; the least is {self._lowest} {self._unit}.", param, ctx)
        if self._highest is not None and number > self._highest:
            self.fail(f"{number} is too large; the most is {self._highest} {self._unit}.", param, ctx)
        return number


class Decimal(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A number above zero with at most three digits after the point."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        if _DECIMAL.fullmatch(value) is None or float(value) == 0:
            self.fail(f"{shown(value)} is not a number above 0, such as 2 or 0.5.", param, ctx)
        return float(value)


class Reference(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions only
    """A sandbox: its id, the unique beginning of one, or its name. Completes names."""

    name = "sandbox"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        session = ctx.find_object(Session) or Session()
        try:
            page = session.queries.page(session.principal, states=("creating", "active", "paused"), limit=100)
        except (NexusError, OSError):
            return []  # a shell's completion has nowhere to complain
        names = [view.name for view in page.sandboxes] + [view.sandbox_id for view in page.sandboxes]
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def pairs(values: Sequence[str], what: str) -> dict[str, str]:
    """`K=V` texts as a dict; raises for a text without `=` and for a name given twice. Quotes no value."""
    result: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"The {what} {shown(name)} has no '='", hint=f"Give --{what} NAME=VALUE.", field=what)
        if name in result:
            raise InvalidInput(f"The {what} {shown(name)} is given twice", field=what)
        result[name] = value
    return result


def environment(values: Sequence[str], own: Any) -> dict[str, str]:
    """`K=V`, or `K` alone for the value that the caller's environment `own` has."""
    result: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals:
            if name not in own:
                raise InvalidInput(
                    f"The variable {shown(name)} is not set here", hint="Set it, or give --env NAME=VALUE.", field="env"
                )
            value = own[name]
        if name in result:
            raise InvalidInput(f"The variable {shown(name)} is given twice", field="env")
        result[name] = value
    return result


def _set(attribute: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def store(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        session = ctx.find_object(Session)
        if value and session is not None:
            setattr(session.output, attribute, True)

    return store


def moment_option(command: F) -> F:
    """`--as-of`, which every question to the past has."""
    about = "As it was then: a position, or a time such as 2026-11-23T10:42:00Z."
    return click.option("--as-of", metavar="TIME|POSITION", help=about)(command)


def common(command: F) -> F:
    """`--json` and `--quiet`, which every command has."""
    quiet = click.option(
        "-q",
        "--quiet",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_set("quiet"),
        help="No hints; just ids where sandboxes are named.",
    )
    as_json = click.option(
        "--json", is_flag=True, is_eager=True, expose_value=False, callback=_set("json"), help="Print JSON."
    )
    return as_json(quiet(command))


sandbox_argument = click.argument("sandbox", type=Reference(), metavar="SANDBOX")
