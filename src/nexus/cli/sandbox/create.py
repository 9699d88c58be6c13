"""`nexus sandbox create`."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import click

from nexus.cli.options import Decimal, Whole, common, environment, pairs
from nexus.cli.session import Session, pass_session
from nexus.domain.errors import InvalidInput

if TYPE_CHECKING:
    from nexus.domain.provider import Limits, NetworkPolicy


@click.command()
@click.argument("name")
@click.option("--ttl", type=Whole("minutes"), metavar="MINUTES", help="Minutes to live after the last use.  [10]")
@click.option("--template", metavar="ID", help="What the sandbox is made from.")
@click.option("--provider", metavar="NAME", help="Where it runs: local, docker, e2b, modal.")
@click.option("--label", "labels", multiple=True, metavar="K=V", help="A label; may be repeated.")
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="K[=V]",
    help="An environment variable of the sandbox; without a value, the caller's own. May be repeated.",
)
@click.option("--network", type=click.Choice(["full", "none"]), help="Outward network.  [full, where there is one]")
@click.option("--memory", type=Whole("MiB"), metavar="MIB", help="Memory limit in MiB.")
@click.option("--cpus", type=Decimal(), metavar="N", help="CPU limit, such as 2 or 0.5.")
@click.option("--processes", type=Whole("processes"), metavar="N", help="Most processes at once.")
@click.option("--disk", type=Whole("MiB"), metavar="MIB", help="Writable space in MiB.")
@click.option("--capture/--no-capture", default=None, help="Keep code and output of its runs, encrypted.  [no]")
@click.option("--idempotency-key", metavar="KEY", help="The same key again gives the same sandbox.")
@common
@pass_session
def create(
    session: Session,
    name: str,
    ttl: int | None,
    template: str | None,
    provider: str | None,
    labels: tuple[str, ...],
    variables: tuple[str, ...],
    network: str | None,
    memory: int | None,
    cpus: float | None,
    processes: int | None,
    disk: int | None,
    capture: bool | None,
    idempotency_key: str | None,
) -> None:
    """Create a sandbox and wait until it is active."""
    given = {"memory_mb": memory, "cpus": cpus, "processes": processes, "disk_mb": disk}
    wanted_labels = pairs(labels, "label")
    wanted_env = environment(variables, os.environ)
    engine = session.engine
    if provider is not None and provider not in engine.providers.names():
        raise InvalidInput(
            "There is no such provider",
            hint=f"Known providers: {', '.join(engine.providers.names())}.",
            field="provider",
        )
    output = session.output
    with output.progress("Creating the sandbox"):
        view = engine.create(
            session.principal,
            name,
            ttl_minutes=ttl,
            template=template,
            provider=provider,
            network=cast("NetworkPolicy | None", network),
            limits=_limits(session, template, {key: value for key, value in given.items() if value is not None}),
            labels=wanted_labels,
            env=wanted_env,
            capture=capture,
            idempotency_key=idempotency_key,
        )
    if output.json:
        output.value(view.to_dict(session.now()))
    elif output.quiet:
        output.line(view.sandbox_id)
    else:
        output.line(f"Created sandbox: {view.sandbox_id}")
    for note in view.notes:
        output.hint(f"Note: {note}")


def _limits(session: Session, template: str | None, given: dict[str, int | float]) -> Limits | None:
    """The template's limits with those that were given; None when none was."""
    return replace(session.settings.template(template).limits, **given) if given else None  # type: ignore[arg-type]
