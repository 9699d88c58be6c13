"""Contract: files go in and out as bytes, within limits, and never leave the sandbox."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus.domain.errors import FileNotInSandbox, InvalidInput, ProviderUnsupported
from nexus.domain.provider import Observed, Provider
from nexus.testing.provider_contract.base import ContractBase

LIMIT = 1 << 22


class FileContract(ContractBase):
    def has_files(self, provider: Provider, sandbox: Observed) -> bool:
        """False after checking that files, where they are not declared, are refused."""
        if provider.capabilities.files:
            return True
        with pytest.raises(ProviderUnsupported):
            b"".join(provider.read_file(sandbox.ref, "a", limit=LIMIT))
        with pytest.raises(ProviderUnsupported):
            provider.write_file(sandbox.ref, "a", [b""], limit=LIMIT)
        return False

    def test_a_round_trip_keeps_every_byte(self, provider: Provider, other: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return
        data = bytes(range(256)) * 4096 + b"odd"
        chunks = (data[i : i + 70_001] for i in range(0, len(data), 70_001))
        assert provider.write_file(sandbox.ref, "data.bin", chunks, limit=LIMIT) == len(data)
        assert self.content(other, sandbox.ref, "data.bin") == data

    def test_an_empty_file_is_a_file(self, provider: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return
        assert provider.write_file(sandbox.ref, "empty", [], limit=0) == 0
        assert self.content(provider, sandbox.ref, "empty") == b""
        assert self.execute(provider, sandbox.ref, "test -f empty").exit_code == 0

    def test_programs_and_callers_see_the_same_files(self, provider: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return
        provider.write_file(sandbox.ref, "in.txt", [b"from ", b"outside"], limit=LIMIT)
        code = "cat in.txt; echo changed >> in.txt; pwd > where"
        assert self.execute(provider, sandbox.ref, code).stdout == b"from outside"
        assert self.content(provider, sandbox.ref, "in.txt") == b"from outsidechanged\n"

    def test_writing_replaces(self, provider: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return
        provider.write_file(sandbox.ref, "a", [b"long content"], limit=LIMIT)
        provider.write_file(sandbox.ref, "a", [b"short"], limit=LIMIT)
        assert self.content(provider, sandbox.ref, "a") == b"short"

    @pytest.mark.parametrize("name", ["a b/ü/ß.txt", "deep/er/and/deeper", "-dash", "quo'te\"", "new\nline", "%41?#&"])
    def test_parents_are_made_and_names_are_just_names(self, provider: Provider, sandbox: Observed, name: str) -> None:
        if not self.has_files(provider, sandbox):
            return
        provider.write_file(sandbox.ref, name, [b"x"], limit=LIMIT)
        assert self.content(provider, sandbox.ref, name) == b"x"
        assert self.execute(provider, sandbox.ref, 'cat "./$NAME"', env={"NAME": name}).stdout == b"x"

    def test_a_limit_is_kept_when_reading(self, provider: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return
        provider.write_file(sandbox.ref, "a", [b"x" * 1000], limit=LIMIT)
        assert b"".join(provider.read_file(sandbox.ref, "a", limit=1000)) == b"x" * 1000
        with pytest.raises(InvalidInput):
            b"".join(provider.read_file(sandbox.ref, "a", limit=999))

    def test_a_limit_is_kept_when_writing(self, provider: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return
        asked = 0

        def endless() -> Iterator[bytes]:
            nonlocal asked
            while True:
                asked += 1
                yield b"x" * 1000

        with pytest.raises(InvalidInput):
            provider.write_file(sandbox.ref, "a", endless(), limit=10_000)
        assert asked < 1000, "it stops asking once there is too much"
        assert provider.write_file(sandbox.ref, "a", [b"x" * 10_000], limit=10_000) == 10_000

    def test_a_source_that_fails_says_so_itself(self, provider: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return

        def broken() -> Iterator[bytes]:
            yield b"x"
            raise OSError("the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):
            provider.write_file(sandbox.ref, "a", broken(), limit=LIMIT)

    def test_what_is_missing_is_not_found(self, provider: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return
        for path in ("missing", "no/such/folder/file"):
            with pytest.raises(FileNotInSandbox):
                b"".join(provider.read_file(sandbox.ref, path, limit=LIMIT))

    def test_a_folder_is_not_a_file(self, provider: Provider, sandbox: Observed) -> None:
        if not self.has_files(provider, sandbox):
            return
        self.execute(provider, sandbox.ref, "mkdir folder; touch folder/a file")
        with pytest.raises(InvalidInput):
            b"".join(provider.read_file(sandbox.ref, "folder", limit=LIMIT))
        with pytest.raises(InvalidInput):
            provider.write_file(sandbox.ref, "folder", [b"x"], limit=LIMIT)
        with pytest.raises(InvalidInput):
            provider.write_file(sandbox.ref, "file/below", [b"x"], limit=LIMIT)

    def test_the_host_cannot_be_read(self, provider: Provider, sandbox: Observed, tmp_path: Path) -> None:
        if not self.has_files(provider, sandbox):
            return
        secret = tmp_path / "secret"
        secret.write_text("host")
        up = "../" * 30
        self.execute(provider, sandbox.ref, f"ln -s '{secret}' link; ln -s '{tmp_path}' folder")
        for path in (str(secret), f"{up}{secret}", "link", "folder/secret"):
            with pytest.raises((FileNotInSandbox, InvalidInput)):
                b"".join(provider.read_file(sandbox.ref, path, limit=LIMIT))

    def test_the_host_cannot_be_written(self, provider: Provider, sandbox: Observed, tmp_path: Path) -> None:
        if not self.has_files(provider, sandbox):
            return
        secret = tmp_path / "secret"
        secret.write_text("host")
        up = "../" * 30
        self.execute(provider, sandbox.ref, f"ln -s '{secret}' link; ln -s '{tmp_path}' folder")
        for path in (str(secret), f"{up}{secret}", "link", "folder/secret", "folder/new"):
            try:
                provider.write_file(sandbox.ref, path, [b"guest"], limit=LIMIT)
            except (FileNotInSandbox, InvalidInput):
                continue
        assert secret.read_text() == "host"
        assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]
