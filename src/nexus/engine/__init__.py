"""The application service: a command becomes an intent event, an adapter makes it true, an outcome event says so.

Recovery, reconcile and the worker live here too. Nothing here may assume that it is alone, local, or called from a
terminal; SQL and SDKs stay in the adapters, rules in the domain.
"""
