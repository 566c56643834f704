"""bearray: beam-search-aware fine-tuning of LLM recommenders on Ray (BEAR, arXiv 2601.22925)."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("bearray")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
