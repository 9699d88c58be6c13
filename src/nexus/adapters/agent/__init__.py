"""The resident agent: the one program that runs inside every local and Docker sandbox, and the client that talks to it.

`guest/` is what runs inside: standard library only, Python 3.9 syntax, nothing of Nexus beyond itself. The rest runs
in the manager and treats every byte from the guest as untrusted. Provider APIs, events and stores may never come in
here.
"""
