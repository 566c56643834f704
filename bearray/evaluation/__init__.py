"""Sharded constrained decoding of a split in Ray Data actors, resumable and count-checked."""

from bearray.evaluation.evaluate import decode_split, evaluate_run

__all__ = ["decode_split", "evaluate_run"]
