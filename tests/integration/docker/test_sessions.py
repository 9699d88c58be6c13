"""Sessions in a container, where all runs share one PID namespace and one uid and can signal each other."""

from __future__ import annotations

import threading

from tests.integration.docker.conftest import Lab
from tests.support.forged_sessions import CLAIMS_TO_BE_OVER


def test_nobody_continues_what_stands_still(lab: Lab) -> None:
    seen = lab.sandbox()
    assert lab.run(seen.ref, CLAIMS_TO_BE_OVER, "python", session="work").exit_code == 0

    def beats() -> int:
        return int(lab.run(seen.ref, "wc -c <beat").stdout)

    lab.run(seen.ref, "for i in {1..20}; do kill -CONT -1; sleep 0.01; done")
    before = beats()
    threading.Event().wait(0.4)
    assert beats() == before
    assert lab.run(seen.ref, "print(1)", "python", session="other").stdout == b"1\n"
