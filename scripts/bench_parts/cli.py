"""The command line as whole processes, against the smallest script that prints such a table with click and rich."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nexus import LocalBackend, NexusFS
from scripts.bench_parts._measure import Row, compare

NEXUS = Path(sys.executable).parent / "nexus"
SANDBOXES = 5
BARE = f"""
import click
from rich.console import Console
from rich.table import Table


@click.command()
def main() -> None:
    table = Table("id", "name", "status", "provider", "created", "expires in")
    for number in range({SANDBOXES}):
        table.add_row("sb_" + "0" * 32, f"sandbox-{{number}}", "active", "local", "just now", "10 min")
    Console().print(table)


main()
"""


@contextmanager
def installation() -> Iterator[dict[str, str]]:
    """The environment of a data folder with a few live sandboxes, gone at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="nexus-bench-") as folder,
        NexusFS(backend=LocalBackend(), data_dir=folder, sandbox_provider="local", auto_cleanup=False) as nx,
    ):
        made = [nx.sandbox_create(f"sandbox-{number}")["sandbox_id"] for number in range(SANDBOXES)]
        try:
            yield {**os.environ, "NEXUS_DATA_DIR": folder}
        finally:
            for sandbox_id in made:
                nx.sandbox_stop(sandbox_id)


def rows() -> list[Row]:
    with installation() as env, tempfile.NamedTemporaryFile("w", suffix=".py") as bare:
        bare.write(BARE)
        bare.flush()

        def call(*command: str | Path) -> None:
            subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)

        def smallest() -> None:
            call(sys.executable, bare.name)

        return [
            compare("nexus sandbox list / bare click+rich", lambda: call(NEXUS, "sandbox", "list"), smallest, 25, 2.0),
            compare("nexus sandbox status / bare", lambda: call(NEXUS, "sandbox", "status", "sandbox-0"), smallest, 15),
            compare("nexus --help / bare", lambda: call(NEXUS, "--help"), smallest, 15),
            compare(
                "nexus sandbox run -c pass / bare",
                lambda: call(NEXUS, "sandbox", "run", "sandbox-0", "-c", "pass"),
                smallest,
                15,
            ),
        ]
