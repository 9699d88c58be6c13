"""Side effects: providers, stores, the resident agent, files, and who this process is.

Every call to the outside world lives here behind a port of `nexus.domain`; no rule about what may happen ever does.
"""
