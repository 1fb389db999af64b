"""Networks to compress, by name."""

from ajpq.models.registry import build_model, model_names

__all__ = ["build_model", "model_names"]
