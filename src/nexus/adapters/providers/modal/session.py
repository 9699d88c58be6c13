"""The connection to Modal: the SDK, its client, the app, images, and handles of sandboxes that are in use."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections import OrderedDict
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nexus.adapters.providers.modal.failures import is_missing
from nexus.domain.errors import ConfigurationError, ProviderInvalidRequest
from nexus.domain.provider import Template

if TYPE_CHECKING:
    import modal

INSTALL: Final = "pip install 'nexus-sandbox[modal]'"
HANDLES: Final = 128
"""Sandboxes whose connection is kept for the next call. The SDK itself drops one after 30 idle seconds."""
THROTTLE_WAIT: Final = 5
"""Seconds that the SDK may spend on a server that asks it to slow down; its own default is for ever."""


def check_installed() -> None:
    """`ConfigurationError` with the install line when the extra is missing. Imports nothing."""
    if importlib.util.find_spec("modal") is None:
        raise ConfigurationError("The Modal provider needs the modal package", hint=f"{INSTALL} installs it.")


def credentials(token_id: str | None, token_secret: str | None) -> tuple[str, str]:
    """What was given, else the environment, else the profile that `modal token new` has written.

    `ConfigurationError` when there is none.
    """
    token_id = token_id or os.environ.get("MODAL_TOKEN_ID")
    token_secret = token_secret or os.environ.get("MODAL_TOKEN_SECRET")
    if not (token_id and token_secret) and _profile_path().is_file():
        from modal.config import config

        token_id, token_secret = token_id or config["token_id"], token_secret or config["token_secret"]
    if not (token_id and token_secret):
        missing = " and ".join(
            name for name, value in (("MODAL_TOKEN_ID", token_id), ("MODAL_TOKEN_SECRET", token_secret)) if not value
        )
        raise ConfigurationError(
            f"Modal token required: {missing} not set", hint="`modal token new` makes a token and stores it."
        )
    return token_id, token_secret


def _profile_path() -> Path:
    return Path(os.environ.get("MODAL_CONFIG_PATH") or Path.home() / ".modal.toml")


class Session:
    """One client. But for its making it lives on one event loop, so nothing in here needs a lock against threads."""

    def __init__(self, token: tuple[str, str], app_name: str, environment: str | None) -> None:
        # Half a second of work that must neither hold up the loop nor count against a call's deadline.
        import_module("modal")
        self._token = token
        self._app_name = app_name
        self._environment = environment
        self._opening = asyncio.Lock()
        self._app: modal.App | None = None
        self._client: asyncio.Task[modal.Client] | None = None
        self._images: dict[str, modal.Image] = {}
        self._handles: OrderedDict[str, modal.Sandbox] = OrderedDict()
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def app_name(self) -> str:
        return self._app_name

    @property
    def environment(self) -> str | None:
        return self._environment

    @property
    def connected(self) -> bool:
        return self._app is not None

    async def client(self) -> modal.Client:
        """Connected, once. A caller who gives up does not end the attempt: the SDK would go on with it all the same,
        for a client that nobody could close any more."""
        if self._client is None or (self._client.done() and (self._client.cancelled() or self._client.exception())):
            import modal

            # The SDK reads this wherever it is throttled, and offers no other way to say it.
            os.environ.setdefault("MODAL_MAX_THROTTLE_WAIT", str(THROTTLE_WAIT))
            self._client = asyncio.ensure_future(modal.Client.from_credentials.aio(*self._token))
            # A failure that nobody waits for any more is not worth a line on stderr.
            self._client.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._client)

    async def app(self) -> modal.App:
        """The app that holds the sandboxes. Nothing in Modal is changed but that it exists afterwards."""
        async with self._opening:
            if self._app is None:
                import modal

                self._app = await modal.App.lookup.aio(
                    self._app_name,
                    client=await self.client(),
                    environment_name=self._environment,
                    create_if_missing=True,
                )
            return self._app

    async def hello(self) -> None:
        """Ask the server whether it takes the token."""
        await (await self.client()).hello.aio()  # type: ignore[no-untyped-call]

    async def image(self, template: Template) -> modal.Image:
        """The image that a template names, built when Modal does not have it yet."""
        app = await self.app()
        key = _image_key(template)
        image = self._images.get(key)
        if image is None:
            image = await _image(key, await self.client()).build.aio(app)
            self._images[key] = image
        return image

    def forget_image(self, image: modal.Image) -> None:
        """Look it up anew the next time it is asked for."""
        self._images = {key: known for key, known in self._images.items() if known is not image}

    async def snapshot(self, image_id: str) -> modal.Image | None:
        """A snapshot, None when Modal says that there is no such image."""
        app = await self.app()
        try:
            return await _image(image_id, await self.client()).build.aio(app)
        except Exception as error:
            if is_missing(error):
                return None
            raise

    async def delete_snapshot(self, image_id: str) -> None:
        """Delete it; fine when it is not there."""
        from modal.experimental import image_delete

        try:
            await image_delete.aio(image_id, client=await self.client())
        except Exception as error:
            if not is_missing(error):
                raise

    async def look(self, modal_id: str) -> modal.Sandbox | None:
        """A sandbox that runs; None when it has ended or Modal does not know it: the proof that it is gone."""
        import modal

        try:
            found = await modal.Sandbox.from_id.aio(modal_id, client=await self.client())
        except Exception as error:
            if not is_missing(error):
                raise
            found = None
        if found is None or found.returncode is not None:
            self.forget(modal_id)
            return None
        return found

    async def handle(self, modal_id: str) -> modal.Sandbox | None:
        """The same, but one that was used before is taken to run still: what is asked of it will tell."""
        known = self._handles.get(modal_id)
        if known is not None:
            self._handles.move_to_end(modal_id)
            return known
        found = await self.look(modal_id)
        if found is None:
            return None
        return self.remember(found)

    def remember(self, sandbox: modal.Sandbox) -> modal.Sandbox:
        """Keep a handle, with its connection, for the next call; the first one wins."""
        kept = self._handles.setdefault(sandbox.object_id, sandbox)
        self._handles.move_to_end(sandbox.object_id)
        while len(self._handles) > HANDLES:
            self.forget(next(iter(self._handles)))
        return kept

    def forget(self, modal_id: str) -> None:
        """Drop a handle; its connection is closed when the runs that use it have ended."""
        sandbox = self._handles.pop(modal_id, None)
        if sandbox is not None:
            task = asyncio.ensure_future(sandbox.detach.aio())  # type: ignore[no-untyped-call]
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def close(self) -> None:
        for modal_id in list(self._handles):
            self.forget(modal_id)
        await asyncio.gather(*self._leaving, return_exceptions=True)
        connecting, self._client, self._app = self._client, None, None
        if connecting is None or connecting.cancel():
            return
        if not connecting.cancelled() and connecting.exception() is None:
            await connecting.result().close.aio()


def _image_key(template: Template) -> str:
    """An image id of Modal's, a registry image, or "" for the provider's own."""
    if template.template_id and template.template_id.startswith("im-"):
        return template.template_id
    return template.image or template.template_id or ""


def _image(key: str, client: Any) -> modal.Image:
    import modal

    if key.startswith("im-"):
        return modal.Image.from_id(key, client=client)
    try:
        if key:
            return modal.Image.from_registry(key)
        return modal.Image.debian_slim("3.12").apt_install("nodejs").pip_install("numpy", "pandas")
    except modal.exception.InvalidError as error:
        raise ProviderInvalidRequest(f"Modal cannot use the image {key!r}: {error}") from error


def setting(settings: Any, name: str) -> Any:
    """A value of a settings object or mapping; None when it is not there or empty."""
    value = settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name, None)
    return value or None
