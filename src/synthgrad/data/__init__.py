"""Data in memory: images out of the package or from files, texts, and generated sequences."""

from synthgrad.data.batches import Batches, Cursor
from synthgrad.data.char_stream import CharStream
from synthgrad.data.curriculum import THRESHOLD_BITS, Curriculum, modelled_length
from synthgrad.data.dataset import Dataset, Split
from synthgrad.data.digit_stream import DigitStep, DigitStream
from synthgrad.data.idx import read_idx
from synthgrad.data.penn_treebank import PennTreebank, read_penn_treebank
from synthgrad.data.pixel_sequences import pixels, rows
from synthgrad.data.registry import CheckReport, available, check, get, load
from synthgrad.data.sequence_tasks import SequenceTask, answer_bits, copy_task, repeat_copy_task
from synthgrad.data.text import CharText, read_text
from synthgrad.data.tinyshakespeare import load_tinyshakespeare

__all__ = [
    "THRESHOLD_BITS",
    "Batches",
    "CharStream",
    "CharText",
    "CheckReport",
    "Curriculum",
    "Cursor",
    "Dataset",
    "DigitStep",
    "DigitStream",
    "PennTreebank",
    "SequenceTask",
    "Split",
    "answer_bits",
    "available",
    "check",
    "copy_task",
    "get",
    "load",
    "load_tinyshakespeare",
    "modelled_length",
    "pixels",
    "read_idx",
    "read_penn_treebank",
    "read_text",
    "repeat_copy_task",
    "rows",
]
