"""Small files in the formats that the readers know, made up on the spot."""

import struct
from pathlib import Path

import numpy as np

from synthgrad.data import fashion_mnist
from synthgrad.data.checksums import sha256
from synthgrad.data.mnist_like import IDX_NAMES


def idx_bytes(array: np.ndarray, code: int = 0x08) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def idx_files(num_train: int = 6, num_test: int = 3) -> dict[str, bytes]:
    generator = np.random.default_rng(0)
    contents: dict[str, bytes] = {}
    for prefix, number in (("train", num_train), ("t10k", num_test)):
        images = generator.integers(0, 256, (number, 4, 5), dtype=np.uint8)
        contents[f"{prefix}-images-idx3-ubyte"] = idx_bytes(images)
        contents[f"{prefix}-labels-idx1-ubyte"] = idx_bytes(np.arange(number, dtype=np.uint8) % 10)
    return contents


def checksums(contents: dict[str, bytes]) -> dict[str, str]:
    return {name: sha256(contents[name]) for name in IDX_NAMES}


def write_fashion_mnist(folder: Path, monkeypatch) -> None:
    """Write a small Fashion-MNIST and let its checksums pass for the published ones."""
    contents = idx_files()
    monkeypatch.setattr(fashion_mnist, "IDX_SHA256", checksums(contents))
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def cifar_records(num_records: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    records = generator.integers(0, 256, (num_records, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    return records


def python2_batch(records: np.ndarray) -> bytes:
    """Pickle a batch as Python 2 did for the published files: protocol 2, byte strings."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    pixels = records[:, 1:].tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + short(b"b") + b"\x87R"
        b"(K\x01M" + struct.pack("<H", len(records)) + b"M\x00\x0c\x86"
        b"cnumpy\ndtype\n" + short(b"u1") + b"K\x00K\x01\x87R"
        b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + struct.pack("<I", len(pixels)) + pixels + b"tb"
    )
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in records[:, 0]) + b"e"
    return (
        b"\x80\x02}("
        + (short(b"batch_label") + short(b"training batch 1 of 5"))
        + (short(b"labels") + labels)
        + (short(b"data") + array)
        + (short(b"filenames") + b"]")
        + b"u."
    )
