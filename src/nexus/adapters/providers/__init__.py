"""The provider adapters, one package each: local, docker, e2b, modal. Each makes the world match what the events say.

No adapter knows another, decides a state, or imports its SDK before it is used.
"""
