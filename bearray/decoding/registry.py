"""Which decoders there are: what each needs and where it comes from."""

from __future__ import annotations

from typing import TypedDict


class DecoderInfo(TypedDict):
    """One decoder."""

    name: str
    needs: list[str]
    source: str


_DECODERS: tuple[DecoderInfo, ...] = (
    {
        "name": "beam",
        "needs": ["model", "trie"],
        "source": "constrained beam search as in BEAR (arXiv 2601.22925, section 2) and MSL (arXiv "
        "2504.04178); "
        "same answers as transformers generate with prefix_allowed_tokens_fn",
    },
    {
        "name": "d3",
        "needs": ["model", "trie", "text-free scores"],
        "source": "D3, debiasing-diversifying decoding: Bao et al., EMNLP 2024, arXiv 2406.14900",
    },
    {
        "name": "diverse",
        "needs": ["model", "trie"],
        "source": "diverse beam search: Vijayakumar et al., arXiv 1610.02424; over the trie",
    },
    {
        "name": "exact",
        "needs": ["model", "trie"],
        "source": "branch and bound over the trie: the true top K of the catalogue",
    },
    {
        "name": "greedy",
        "needs": ["model", "trie"],
        "source": "the most probable valid next token until a title ends: beam search with one beam",
    },
    {
        "name": "grounding",
        "needs": ["model", "title embeddings"],
        "source": "unconstrained beam search, then the titles nearest to its text, as in BIGRec: Bao et al., "
        "TORS 2025, arXiv 2308.08434",
    },
)


def list_decoders() -> list[DecoderInfo]:
    """The decoders of `bearray.decoding`, by name."""
    return [dict(info) for info in sorted(_DECODERS, key=lambda info: info["name"])]  # type: ignore[misc]
