"""The product's decoder of test cases, with a gate before each shard."""

from __future__ import annotations

from typing import Any

from bearray.evaluation.evaluate import ShardDecoder
from tests.faults.sweep_process import gates_here


class GatedDecoder(ShardDecoder):
    def table(self, cases: Any, job: Any) -> Any:
        gates_here().reach(f"shard {job['decoded']} {job['shard']}")
        return super().table(cases, job)
