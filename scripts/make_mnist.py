"""Make the one file in which the package ships MNIST, from the four published IDX files.

    python scripts/make_mnist.py FOLDER

FOLDER holds the files, gzipped or not, as they were published at http://yann.lecun.com/exdb/mnist/.
Each must have the checksum in `synthgrad.data.mnist`. The archive is the same, byte for byte, each
time it is made with the same version of liblzma; its checksum is printed and belongs into
`ARCHIVE_SHA256`. XZ at its strongest setting packs the files into 9.1 MB; bzip2 needs 9.8 MB, a
compressed .npz 11.5 MB, and neither is read faster.
"""

import io
import lzma
import sys
import tarfile
from pathlib import Path

from synthgrad.data.checksums import sha256, verify_sha256
from synthgrad.data.idx import read_maybe_gzipped
from synthgrad.data.mnist import ARCHIVE_SHA256, IDX_SHA256, archive_path


def read(folder: Path, name: str) -> bytes:
    plain, gzipped = folder / name, folder / f"{name}.gz"
    path = plain if plain.exists() else gzipped
    data = read_maybe_gzipped(path)
    verify_sha256(data, IDX_SHA256[name], source=str(path), mend="Fetch it again.")
    return data


def pack(files: dict[str, bytes]) -> bytes:
    """Return a .tar.xz archive without anything that changes from one machine to the next."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            # A new TarInfo has no time, no owner and the mode 0644.
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return lzma.compress(buffer.getvalue(), preset=9 | lzma.PRESET_EXTREME)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    packed = pack({name: read(folder, name) for name in IDX_SHA256})
    path = archive_path()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(packed)
    print(f"{path}: {len(packed):,} bytes, SHA-256 {sha256(packed)}")
    if sha256(packed) != ARCHIVE_SHA256:
        print("Put this checksum into ARCHIVE_SHA256 in src/synthgrad/data/mnist.py.")


if __name__ == "__main__":
    main()
