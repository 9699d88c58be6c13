"""Loopback clouds: servers on real sockets that the unmodified E2B and Modal SDKs take for the real thing.

Test support only: nothing in the library imports it, and nothing here knows an adapter.
"""
