"""The pure core: lifecycle, events, the sandbox aggregate, decisions, policies, errors and the ports.

No clock, no randomness, no IO, no SQL and no SDK may ever come in here: time and ids arrive as arguments.
"""
