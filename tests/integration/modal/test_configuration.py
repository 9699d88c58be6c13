"""What must be there before Modal can be used, and what is said when it is not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from nexus.adapters.providers.modal import CAPABILITIES, ModalProvider
from nexus.domain.errors import ConfigurationError, ProviderAuth, ProviderUnavailable
from tests.integration.modal.conftest import new_spec
from tests.support.cloud.common import Fault
from tests.support.cloud.modal import ModalCloud
from tests.support.cloud.modal_service import TOKEN_ID, TOKEN_SECRET
from tests.support.waiting import until

ROOT = Path(__file__).parents[3]


def test_the_sdk_is_imported_when_it_is_used_and_not_before() -> None:
    program = (
        "import sys\n"
        "from nexus.adapters.providers.modal import CAPABILITIES, ModalProvider\n"
        "provider = ModalProvider(token_id='a', token_secret='b')\n"
        "assert provider.capabilities is CAPABILITIES and provider.name == 'modal'\n"
        "provider.close()\n"
        "print(sorted({'modal', 'grpclib', 'asyncio.sslproto'} & set(sys.modules)))\n"
    )
    path = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MODAL_CONFIG_PATH": "/dev/null"}
    done = subprocess.run([sys.executable, "-c", program], env=path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert not {"modal", "grpclib"} & set(eval(done.stdout))


def test_a_missing_extra_is_answered_with_the_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modal", None)
    with pytest.raises(ConfigurationError) as caught:
        ModalProvider(token_id="a", token_secret="b")
    assert "pip install 'nexus-sandbox[modal]'" in caught.value.hint


@pytest.mark.parametrize("given", ["MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", None])
def test_a_missing_token_is_answered_with_the_names_of_the_variables(
    monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    names = {"MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET"}
    monkeypatch.setenv("MODAL_CONFIG_PATH", "/dev/null")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(given, "x")
    with pytest.raises(ConfigurationError) as caught:
        ModalProvider()
    assert all(name in caught.value.message for name in names - {given})
    assert given is None or given not in caught.value.message


def test_the_token_of_modals_own_profile_is_used(tmp_path: Path) -> None:
    (tmp_path / "modal.toml").write_text('[default]\ntoken_id = "ak-file"\ntoken_secret = "as-file"\n')
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MODAL_")}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "MODAL_CONFIG_PATH": str(tmp_path / "modal.toml")}
    program = (
        "from nexus.adapters.providers.modal.session import credentials\n"
        "print(credentials(None, None), credentials('given', None))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "('ak-file', 'as-file') ('given', 'as-file')\n", done.stderr


@pytest.mark.parametrize("kind", [dict, SimpleNamespace])
def test_from_settings(cloud: ModalCloud, kind: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODAL_TOKEN_ID")
    monkeypatch.delenv("MODAL_TOKEN_SECRET")
    settings = kind(modal_token_id=TOKEN_ID, modal_token_secret=TOKEN_SECRET, modal_app_name="mine")
    provider = ModalProvider.from_settings(settings)
    try:
        provider.ensure(new_spec())
    finally:
        provider.close()
    assert "mine" in cloud.world.apps


def test_a_wrong_token_is_refused_and_explained(
    open_provider: Callable[..., ModalProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = open_provider(token_secret="as-wrong")
    with pytest.raises(ProviderAuth) as caught:
        provider.ensure(new_spec())
    assert "MODAL_TOKEN_ID" in caught.value.hint
    assert "as-wrong" not in f"{caught.value!r} {caught.value.details}"


def test_diagnose_tells_well_from_ill_and_never_raises(
    cloud: ModalCloud, provider: ModalProvider, open_provider: Callable[..., ModalProvider]
) -> None:
    assert [finding.ok for finding in provider.diagnose()] == [True]
    wrong = open_provider(token_id="ak-wrong").diagnose()
    assert [(finding.ok, bool(finding.hint)) for finding in wrong] == [(False, True)]
    cloud.plan.set(Fault.SLOW)
    assert [finding.ok for finding in provider.diagnose()] == [False]
    cloud.plan.clear()
    cloud.stop()
    lonely = open_provider()
    assert [finding.ok for finding in lonely.diagnose()] == [False]
    cloud.start()
    until(lambda: lonely.diagnose()[0].ok)


def test_a_server_that_was_never_there_is_not_waited_for(
    cloud: ModalCloud, open_provider: Callable[..., ModalProvider]
) -> None:
    cloud.stop()
    provider = open_provider()
    with pytest.raises(ProviderUnavailable):  # before anything was sent: nothing can have happened
        provider.ensure(new_spec())
    cloud.start()
    until(lambda: provider.diagnose()[0].ok)  # and it is found when it is back
    assert provider.ensure(new_spec()).condition == "running"


def test_throttling_is_not_waited_out_for_ever(
    cloud: ModalCloud, open_provider: Callable[..., ModalProvider], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MODAL_MAX_THROTTLE_WAIT")
    open_provider().ensure(new_spec())
    assert int(os.environ["MODAL_MAX_THROTTLE_WAIT"]) > 0
    monkeypatch.delenv("MODAL_MAX_THROTTLE_WAIT")


def test_what_it_can_do_is_said_in_advance() -> None:
    assert CAPABILITIES.pause == "filesystem"
    assert not CAPABILITIES.ref_survives_pause
    assert not CAPABILITIES.lists_paused
    assert not CAPABILITIES.native_ttl
    assert CAPABILITIES.limits == ("memory_mb", "cpus")
    assert CAPABILITIES.gpu
