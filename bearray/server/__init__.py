"""Serving a trained model on Ray Serve (the extra `serve`)."""

from bearray.server.start import ServeOptions, check_can_serve, serving

__all__ = ["ServeOptions", "check_can_serve", "serving"]
