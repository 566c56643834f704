"""The list of decoders."""

from __future__ import annotations

import subprocess
import sys

import bearray.decoding
from bearray.decoding import list_decoders


def test_what_is_listed_exists():
    listed = {info["name"]: info for info in list_decoders()}
    assert list(listed) == ["beam", "d3", "diverse", "exact", "greedy", "grounding"]
    assert all(set(info) == {"name", "needs", "source"} for info in listed.values())
    assert callable(bearray.decoding.constrained_beam_search)
    assert callable(bearray.decoding.d3_beam_search)
    assert callable(bearray.decoding.diverse_beam_search)
    assert callable(bearray.decoding.exact_top_k)
    assert callable(bearray.decoding.greedy_search)
    assert callable(bearray.decoding.grounded_beam_search)
    assert all(getattr(bearray.decoding, name) is not None for name in bearray.decoding.__all__)


def test_listing_does_not_load_torch():
    code = "import sys, bearray.decoding as d; d.list_decoders(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
