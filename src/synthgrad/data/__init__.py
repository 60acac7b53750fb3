"""Data sets in memory: MNIST out of the package, others from files on disk, texts as characters."""

from synthgrad.data.batches import Batches, Cursor
from synthgrad.data.dataset import Dataset, Split
from synthgrad.data.idx import read_idx
from synthgrad.data.registry import CheckReport, available, check, get, load
from synthgrad.data.text import CharText, read_text

__all__ = [
    "Batches",
    "CharText",
    "CheckReport",
    "Cursor",
    "Dataset",
    "Split",
    "available",
    "check",
    "get",
    "load",
    "read_idx",
    "read_text",
]
