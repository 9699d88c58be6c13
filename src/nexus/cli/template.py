"""`nexus template`: what sandboxes are made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from nexus.cli.lazy import LazyGroup
from nexus.cli.options import common, pairs
from nexus.cli.session import Session, pass_session
from nexus.domain.errors import InvalidInput
from nexus.domain.validation import identifier

if TYPE_CHECKING:
    from nexus.domain.provider import Template

_COMMANDS: Final = {
    "list": ("nexus.cli.template:list_", "List the templates."),
    "show": ("nexus.cli.template:show", "Show one template in full."),
    "build": ("nexus.cli.template:build", "Build a template's image or Python environment."),
}
_IMAGE: Final = "nexus-sandbox"


@click.group(cls=LazyGroup, lazy=_COMMANDS)
@common
def template() -> None:
    """What sandboxes are made from: one name for an image, a Python environment, or a cloud's own template.

    Templates are declared in the configuration file, as [templates.NAME] with any of image, python, template_id, gpu,
    env, pool (how many are kept ready), and limits (memory_mb, cpus, processes, disk_mb). `nexus sandbox create
    --template NAME` uses one.
    """


@click.command(name="list")
@common
@pass_session
def list_(session: Session) -> None:
    """List the templates: those of the configuration, those built here, and the default."""
    found = [_as_dict(session.settings.template(name)) for name in _names(session)]
    if session.output.json:
        session.output.value({"templates": found})
        return
    columns = ["NAME", "IMAGE", "PYTHON", "TEMPLATE ID", "GPU", "POOL"]
    keys = ("name", "image", "python", "template_id", "gpu", "pool")
    session.output.table(columns, [["" if row[key] is None else str(row[key]) for key in keys] for row in found])


@click.command()
@click.argument("name")
@common
@pass_session
def show(session: Session, name: str) -> None:
    """Show one template in full. The values of its variables are not shown."""
    if name not in _names(session):
        raise InvalidInput("There is no such template", hint=f"Templates: {', '.join(_names(session))}.", field="name")
    found = _as_dict(session.settings.template(name))
    if session.output.json:
        session.output.value(found)
        return
    limits = ", ".join(f"{key} {value}" for key, value in found.pop("limits").items() if value is not None)
    variables = ", ".join(found.pop("env_names"))
    session.output.fields(
        [*((key, str(value)) for key, value in found.items() if value), ("limits", limits), ("env", variables)]
    )


@click.command()
@click.argument("name")
@click.option(
    "--provider", type=click.Choice(["local", "docker"]), default="docker", help="What to build it for.  [docker]"
)
@click.option("--file", "-f", "file", metavar="FILE", help="A Dockerfile, or a requirements file.")
@click.option("--context", metavar="DIR", help="docker: what the Dockerfile may COPY from.")
@click.option("--build-arg", "arguments", multiple=True, metavar="K=V", help="docker: may be repeated.")
@common
@pass_session
def build(
    session: Session, name: str, provider: str, file: str | None, context: str | None, arguments: tuple[str, ...]
) -> None:
    """Build a template.

    docker: an image, `nexus-sandbox:NAME` unless the template names another, from the project's own Dockerfile or
    from --file. local: a Python environment with the packages that --file lists, used by --template NAME at once.
    """
    identifier(name, "template name")
    if provider == "docker":
        _build_image(session, name, file, context, pairs(arguments, "build-arg"))
        return
    if context is not None or arguments:
        raise click.UsageError("--context and --build-arg are docker's.")
    if file is None:
        raise click.UsageError("Give the packages as a requirements file: --file FILE.")
    from nexus.adapters.providers.local.environments import build_environment

    python = session.settings.built_python(name)
    with session.output.progress(f"Building the Python environment {name}"):
        build_environment(python.parent.parent, Path(file))
    _built(session, name, provider, str(python))


def _build_image(session: Session, name: str, file: str | None, context: str | None, args: dict[str, str]) -> None:
    from nexus.adapters.providers.docker import build_image

    settings = session.settings
    declared = settings.templates.get(name)
    tag = (declared.image if declared is not None else None) or f"{_IMAGE}:{name}"
    given = settings.sources.get("docker_host", "").startswith(("argument", "file", "environment (NEXUS"))
    with session.output.progress(f"Building image {tag}"):
        build_image(
            tag,
            dockerfile=Path(file) if file is not None else None,
            context=Path(context) if context is not None else None,
            build_args=args,
            base_url=settings.docker_host if given else "",
        )
    _built(session, name, "docker", tag)


def _built(session: Session, name: str, provider: str, result: str) -> None:
    if session.output.json:
        session.output.value({"name": name, "provider": provider, "result": result})
        return
    session.output.line(f"Built template {name}: {result}")


def _names(session: Session) -> list[str]:
    settings = session.settings
    built = [path.parent.parent.name for path in settings.built_python("*").parents[2].glob("*/bin/python")]
    return sorted({"default", *settings.templates, *built})


def _as_dict(template: Template) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": template.name,
        "image": template.image,
        "python": template.python,
        "template_id": template.template_id,
        "gpu": template.gpu,
        "pool": template.pool,
        "limits": asdict(template.limits),
        "env_names": sorted(template.env),
    }
