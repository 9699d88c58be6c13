"""What tests of Nexus and of its providers share: a programmable provider, and the provider port's contract suite.

Third parties import it too. Nothing in the library may import it, and it imports nothing but the domain; only
`nexus.testing.provider_contract` needs pytest.
"""

from nexus.testing.behaviour import Behaviour, FakeRun, Outcome, RunStopped, echo
from nexus.testing.clock import CloudClock, SystemClock, VirtualClock
from nexus.testing.cloud import FakeCloud
from nexus.testing.fake import FakeProvider
from nexus.testing.fake_pool import FakePoolProvider
from nexus.testing.records import CallRecord, ExecutionRecord, FakeResource, Fault

__all__ = [
    "Behaviour",
    "CallRecord",
    "CloudClock",
    "ExecutionRecord",
    "FakeCloud",
    "FakePoolProvider",
    "FakeProvider",
    "FakeResource",
    "FakeRun",
    "Fault",
    "Outcome",
    "RunStopped",
    "SystemClock",
    "VirtualClock",
    "echo",
]
