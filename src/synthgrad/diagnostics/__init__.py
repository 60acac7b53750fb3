"""What synthetic gradients do to a network, in numbers; usable on the user's own model."""

from synthgrad.diagnostics.alignment import alignment
from synthgrad.diagnostics.implied_loss import ImpliedLoss, implied_loss
from synthgrad.diagnostics.rdm import class_separation, rdm, rdm_similarity

__all__ = [
    "ImpliedLoss",
    "alignment",
    "class_separation",
    "implied_loss",
    "rdm",
    "rdm_similarity",
]
