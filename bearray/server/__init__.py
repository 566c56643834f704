"""Serving a trained model on Ray Serve (the extra `serve`)."""

from bearray.server.start import ServeOptions, check_can_serve, serving
from bearray.server.watching import watch

__all__ = ["ServeOptions", "check_can_serve", "serving", "watch"]
