"""What synthetic gradients do to a network, in numbers; usable on the user's own model."""

from synthgrad.diagnostics.alignment import alignment

__all__ = ["alignment"]
