"""What runs inside the sandbox, bundled into one program by `nexus.adapters.agent.bundle`; never installed there.

Standard library only, Python 3.9 syntax, and few imports (no `socket`, `signal`, `json`, `selectors`: each costs more
than the whole agent), since they are paid at every create. Nothing here may import from Nexus outside this folder.
"""
