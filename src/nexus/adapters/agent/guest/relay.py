"""Copies its standard streams to and from the agent's socket: how a client gets there that cannot reach the socket
itself.

Given as text to a `python -c` beside the agent, hence self-contained.
"""

import _socket
import os
import select


def relay(path):  # type: ignore[no-untyped-def]
    """Until either side ends; the agent then drops the client, as it would a socket that closes."""
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
    agent.connect(path)
    number = agent.fileno()
    poller = select.poll()
    poller.register(0, select.POLLIN)
    poller.register(number, select.POLLIN)
    # Blocking writes on purpose: whichever side reads slowly holds the other up, and nothing piles up here.
    while True:
        for descriptor, _ in poller.poll():
            data = os.read(descriptor, 65536)
            if not data:
                os._exit(0)
            view = memoryview(data)
            while view:
                view = view[os.write(1 if descriptor == number else number, view) :]
