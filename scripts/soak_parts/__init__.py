"""The proofs of the guarantees in the numbers that are promised, and the section of the guide that their figures fill.

A figure gets there only from a run that passed; what was not run is said to be not measured.
"""
