"""Code of a session that lies to its init: it says that its run is over, and runs on."""

from __future__ import annotations

from nexus.adapters.agent.guest import session

WORD = session._WORD.format
FORGED = f"""
import os, struct, time
slot = int(__file__.split('/')[-2])
def say(operation, pid, status):
    os.write({session._CHANNEL}, struct.pack({WORD!r}, operation, slot, pid, status))
def beat():
    while True:
        open('beat', 'a').write('x')
        time.sleep(0.02)
"""
CLAIMS_TO_BE_OVER = FORGED + f"say({session._ENDED}, os.getpid(), 0)\nbeat()"
CLAIMS_TO_HAVE_DIED = FORGED + f"say({session._DIED}, 0, 0x300)\nbeat()"
NAMES_ANOTHER = FORGED + f"say({session._ENDED}, 1, 0)\nbeat()"
