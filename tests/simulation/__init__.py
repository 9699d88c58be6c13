"""Deterministic simulation of the real engine: one seed is one schedule of clients, workers, faults and crashes.

Only the outside world is made up here (store, provider, clock, liveness); nothing here may re-implement a rule.
"""
