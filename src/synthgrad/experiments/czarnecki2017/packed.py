"""Symmetric matrices in records: what is above the diagonal, in thousandths."""

from collections.abc import Sequence

import torch
from torch import Tensor


def pack(matrix: Tensor) -> list[int]:
    """Return the entries above the diagonal of a matrix [N, N], row by row, in thousandths.

    Example:
        >>> import torch
        >>> pack(torch.tensor([[0.0, 0.5, 1.2344], [0.5, 0.0, 2.0], [1.2344, 2.0, 0.0]]))
        [500, 1234, 2000]
    """
    rows, columns = torch.triu_indices(*matrix.shape, offset=1)
    return (matrix.cpu()[rows, columns] * 1000).round().to(torch.int64).tolist()


def unpack(entries: Sequence[int]) -> Tensor:
    """Return the symmetric matrix [N, N] with a diagonal of zeros that was packed.

    Example:
        >>> unpack([500, 1234, 2000])
        tensor([[0.0000, 0.5000, 1.2340],
                [0.5000, 0.0000, 2.0000],
                [1.2340, 2.0000, 0.0000]], dtype=torch.float64)
    """
    size = round(((8 * len(entries) + 1) ** 0.5 + 1) / 2)  # of N (N - 1) / 2 entries
    upper = torch.zeros(size, size, dtype=torch.float64)
    rows, columns = torch.triu_indices(size, size, offset=1)
    upper[rows, columns] = torch.tensor(entries, dtype=torch.float64) / 1000
    return upper + upper.T
