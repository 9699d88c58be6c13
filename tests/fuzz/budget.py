"""How long fuzzers look: the same few examples in every run of the tests, others and more of them on demand.

`NEXUS_FUZZ=50` multiplies every budget and draws anew; `scripts/soak` sets it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

FACTOR = int(os.environ.get("NEXUS_FUZZ", "1"))


def budget(examples: int) -> settings:
    """Settings for a fuzzer that plays this many examples in the tests."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
