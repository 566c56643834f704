"""Damaged input for every reader: `python -m tests.fuzz` for many, `test_fuzz.py` for some in each run."""
