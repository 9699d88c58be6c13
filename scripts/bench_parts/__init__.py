"""Benchmarks, one module per area, each with `rows() -> list[Row]`; `scripts/bench` finds, runs and prints them.

Figures are ratios against the raw operation, measured in turn in the same run: never bare milliseconds of one
machine, and nothing here is imported by the product or its tests.
"""
