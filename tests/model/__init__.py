"""A model of the protocol between engine, store and provider, and the driver that lets spin look at all of it.

The model says what the code does at each step, in the code's own order; no test of the code itself lives here.
"""
