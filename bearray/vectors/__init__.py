"""The frozen vectors behind soft tokens: where they come from, how they are kept, how a model gets them."""

from bearray.vectors.attach import attach_new, attach_saved, load_soft, save_soft
from bearray.vectors.frozen import FrozenVectors
from bearray.vectors.make import make_vectors

__all__ = ["FrozenVectors", "attach_new", "attach_saved", "load_soft", "make_vectors", "save_soft"]
