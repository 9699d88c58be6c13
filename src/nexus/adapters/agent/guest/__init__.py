"""What runs inside the sandbox; bundled into one program by `nexus.adapters.agent.bundle` and never installed in the guest.

Standard library only, Python 3.9 syntax, imports kept few and cheap (no `socket`, `signal`, `json`, `selectors`: each costs more than
the whole agent): they are paid at every create. Nothing here may import from Nexus outside this folder.
"""
