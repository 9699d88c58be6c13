"""Images for the private engine, made without a registry from this machine's own Debian packages.

A base image holds the files of some packages and of all that they depend on, as dpkg lists them. The default image
is then built from it with the project's own Dockerfile, by the same call that users have.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import docker
import docker.errors

from tests.support.dockerd import INSTALL_HINT, Engine, EngineFailed

FULL: tuple[str, ...] = (
    "base-files", "bash", "dash", "coreutils", "findutils", "grep", "sed", "procps", "util-linux",
    "python3", "python3-pandas", "python3-numpy", "nodejs",
)  # fmt: skip
SMALL = ("base-files", "bash", "dash", "coreutils", "util-linux", "python3")
BARE = ("base-files", "bash", "dash", "coreutils", "util-linux")
"""Without Python: what makes the provider fall back to plain exec."""

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
FOLDERS = {"tmp": 0o1777, "var/tmp": 0o1777, "proc": 0o755, "sys": 0o755, "dev": 0o755, "root": 0o700}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
LEFT_OUT = re.compile(r"^/usr/share/(doc|man|locale|lintian|bug|info)/|/(tests?|__pycache__)/")


def default_image(engine: Engine) -> str:
    """The project's default image on that engine: its tag; built once per state of its sources."""
    from nexus.adapters.providers.docker import build_image
    from nexus.adapters.providers.docker.images import DOCKERFILE

    base = base_image(engine, FULL)
    tag = "nexus-test/default:" + hashlib.sha256(base.encode() + DOCKERFILE.read_bytes()).hexdigest()[:16]
    with _locked(engine):
        if not _present(engine, tag):
            build_image(tag, base_url=engine.host, build_args={"BASE": base})
    return tag


def base_image(engine: Engine, packages: tuple[str, ...]) -> str:
    """An image with the files of `packages` and their dependencies, from this machine; its tag."""
    closure = _closure(packages)
    key = hashlib.sha256(repr((sorted(closure.items()), LEFT_OUT.pattern)).encode()).hexdigest()[:16]
    tag = f"nexus-test/base:{key}"
    with _locked(engine):
        if not _present(engine, tag):
            with (engine.root / f"import-{key}.tar").open("w+b") as archive:
                try:
                    _write_rootfs(archive, closure)
                    archive.seek(0)
                    subprocess.run(
                        ["docker", "--host", engine.host, "import", "-", tag],
                        stdin=archive,
                        stdout=subprocess.DEVNULL,
                        check=True,
                    )
                finally:
                    Path(archive.name).unlink()
    return tag


@contextmanager
def _locked(engine: Engine) -> Iterator[None]:
    with (engine.root / "images.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _present(engine: Engine, tag: str) -> bool:
    client = docker.APIClient(base_url=engine.host, version="auto")
    try:
        client.inspect_image(tag)
    except docker.errors.ImageNotFound:
        return False
    finally:
        client.close()
    return True


def _closure(packages: Iterable[str]) -> dict[str, str]:
    """Installed packages that `packages` need, with their versions."""
    listing = subprocess.run(
        [
            "dpkg-query",
            "-W",
            "-f=${Package}\t${Version}\t${db:Status-Status}\t${Pre-Depends}, ${Depends}\t${Provides}\n",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    needs: dict[str, list[list[str]]] = {}
    versions: dict[str, str] = {}
    provided: dict[str, str] = {}
    for line in listing.splitlines():
        package, version, status, depends, provides = line.split("\t")
        if status != "installed":
            continue
        versions[package] = version
        needs[package] = [_names(group.split("|")) for group in depends.split(",") if group.strip()]
        for name in _names(provides.split(",")):
            provided.setdefault(name, package)
    missing = [name for name in packages if name not in versions]
    if missing:
        raise EngineFailed(f"not installed: {', '.join(missing)}; install with: {INSTALL_HINT}")
    found: dict[str, str] = {}
    waiting = list(packages)
    while waiting:
        name = waiting.pop()
        package = name if name in versions else provided.get(name, "")
        if package and package not in found:
            found[package] = versions[package]
            for choices in needs[package]:
                waiting += [choice for choice in choices if choice in versions or choice in provided][:1]
    return found


def _names(parts: Iterable[str]) -> list[str]:
    return [re.split(r"[ (:]", part.strip())[0] for part in parts if part.strip()]


def _write_rootfs(archive: IO[bytes], closure: Iterable[str]) -> None:
    listing = subprocess.run(["dpkg", "-L", *sorted(closure)], capture_output=True, text=True, check=True).stdout
    paths = {_merged(line) for line in listing.splitlines() if line.startswith("/") and line != "/."}
    paths |= _alternatives(paths)
    made = {f"/{name}" for name in (*MERGED, *FOLDERS, *FILES)}
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in MERGED:
            if Path(f"/{name}").is_symlink():
                tar.add(f"/{name}", arcname=name)
        for path in sorted(paths - made):
            if not LEFT_OUT.search(path) and os.path.lexists(path):
                tar.add(path, arcname=path.lstrip("/"), recursive=False)
        for name, mode in FOLDERS.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            tar.addfile(folder)
        for name, text in FILES.items():
            file = tarfile.TarInfo(name)
            file.size, file.mode = len(text), 0o644
            tar.addfile(file, io.BytesIO(text.encode()))


def _merged(path: str) -> str:
    """The place of a file on a merged-/usr system: dpkg still lists /bin/bash."""
    top = path.split("/")[1]
    return f"/usr{path}" if top in MERGED and Path(f"/{top}").is_symlink() else path


def _alternatives(paths: set[str]) -> set[str]:
    """Links that update-alternatives made to files among `paths`; packages do not list them."""
    found = set()
    for record in Path("/var/lib/dpkg/alternatives").iterdir():
        for line in record.read_text(errors="replace").splitlines():
            link = _merged(line) if line.startswith("/") and line.count("/") > 1 else ""
            if link and Path(link).is_symlink() and _merged(os.path.realpath(link)) in paths:
                found |= {link, str(Path(link).readlink())}
    return {path for path in found if path.startswith("/")}
