"""Decoders: from a prompt to a ranked list of titles of the catalogue."""

from bearray.decoding.beam import constrained_beam_search
from bearray.decoding.result import BeamResult

__all__ = ["BeamResult", "constrained_beam_search"]
