"""Templates as images: which image a template means, building it, and what to do when it is not there."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexus.adapters.providers.docker.engine import Engine
from nexus.domain.errors import InvalidInput, OperationFailed, ProviderInvalidRequest
from nexus.domain.provider import Template

DEFAULT_IMAGE = "nexus-sandbox:default"
DOCKERFILE = Path(__file__).with_name("Dockerfile")
Log = Callable[[str], None]


def image_of(template: Template, default: str = "") -> str:
    """The image that sandboxes of this template are made from."""
    return template.image or default or DEFAULT_IMAGE


def build_image(
    tag: str = DEFAULT_IMAGE,
    *,
    dockerfile: Path | None = None,
    context: Path | None = None,
    build_args: Mapping[str, str] | None = None,
    base_url: str = "",
    log: Log | None = None,
) -> str:
    """Build a template's image on the engine and return its id.

    Without `dockerfile` it is the project's own, which takes the build arguments BASE and PACKAGES. `context` is the
    folder that its COPY lines refer to; without one they can copy nothing. `log` receives the engine's output, line
    by line. Raises InvalidInput for a missing file, OperationFailed with the last lines when the build fails.
    """
    engine = Engine(base_url)
    try:
        return _build(
            engine, tag, dockerfile or DOCKERFILE, context, dict(build_args or {}), log or (lambda _line: None)
        )
    finally:
        engine.close()


def _build(engine: Engine, tag: str, dockerfile: Path, context: Path | None, args: dict[str, str], log: Log) -> str:
    try:
        recipe = dockerfile.read_bytes()
    except OSError as error:
        raise InvalidInput(f"The Dockerfile {dockerfile} cannot be read: {error.strerror}") from None
    if context is not None and not context.is_dir():
        raise InvalidInput(f"The build context {context} is not a folder")
    image, last = "", ""
    with engine.translated(f"build {tag}", effect=True) as client, _archive(recipe, context) as archive:
        for event in client.build(
            fileobj=archive, custom_context=True, tag=tag, buildargs=args, rm=True, forcerm=True, decode=True
        ):
            line = str(event.get("stream") or event.get("status") or "").rstrip()
            if line:
                log(line)
                last = line
            image = event.get("aux", {}).get("ID", image)
            if "error" in event:
                raise OperationFailed(
                    f"Image {tag} could not be built: {str(event['error']).strip()}",
                    hint=f"The step was: {last}" if last else "",
                )
        return image or str(client.inspect_image(tag)["Id"])


def _archive(recipe: bytes, context: Path | None) -> io.BytesIO:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        if context is not None:
            tar.add(context, arcname=".", filter=lambda entry: None if entry.name == "./Dockerfile" else entry)
        file = tarfile.TarInfo("Dockerfile")
        file.size, file.mode = len(recipe), 0o644
        tar.addfile(file, io.BytesIO(recipe))
    archive.seek(0)
    return archive


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What of an image matters for its containers."""

    image_id: str
    volumes: tuple[str, ...]


def image_facts(engine: Engine, image: str) -> ImageFacts:
    """Look an image up. Raises ProviderInvalidRequest, with what to run, when the engine does not have it."""
    from docker.errors import ImageNotFound

    with engine.translated(f"look up image {image}") as client:
        try:
            found = client.inspect_image(image)
        except ImageNotFound:
            raise image_missing(image) from None
    return ImageFacts(str(found["Id"]), tuple(sorted(found.get("Config", {}).get("Volumes") or ())))


def image_missing(image: str) -> ProviderInvalidRequest:
    hint = "Run: nexus template build default" if image == DEFAULT_IMAGE else f"Run: docker pull {image}"
    if image.startswith("nexus-sandbox:") and image != DEFAULT_IMAGE:
        hint = f"Run: nexus template build {image.partition(':')[2]}"
    return ProviderInvalidRequest(f"The Docker Engine has no image {image}", hint=hint, image=image)


def our_images(engine: Engine) -> Iterator[Mapping[str, Any]]:
    """Images that were built as templates, newest first: their engine records."""
    with engine.translated("list images") as client:
        yield from client.images(name="nexus-sandbox")
