"""Images as sequences of rows or pixels: classifying them then takes a long memory."""

from __future__ import annotations

from torch import Tensor

from synthgrad.errors import ConfigError


def rows(images: Tensor) -> Tensor:
    """Return images as sequences of their rows, from the top down.

    Args:
        images: Shape (batch, 1, height, width), as `Batches` hands them out, or (batch, height,
            width).

    Returns:
        The sequences, time first, shape (height, batch, width): (28, batch, 28) for MNIST.

    Raises:
        ConfigError: The images have another shape, or more than one channel.

    Example:
        >>> import torch
        >>> from synthgrad.data import rows
        >>> rows(torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])).tolist()
        [[[1, 2], [5, 6]], [[3, 4], [7, 8]]]
    """
    return _without_channel(images).transpose(0, 1).contiguous()


def pixels(images: Tensor) -> Tensor:
    """Return images as sequences of their pixels, row by row, each from left to right.

    Args:
        images: As for `rows`.

    Returns:
        The sequences, time first, shape (height * width, batch, 1): (784, batch, 1) for MNIST.

    Raises:
        ConfigError: As for `rows`.

    Example:
        >>> import torch
        >>> from synthgrad.data import pixels
        >>> pixels(torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])).squeeze(-1).tolist()
        [[1, 5], [2, 6], [3, 7], [4, 8]]
    """
    return _without_channel(images).flatten(1).t().unsqueeze(-1).contiguous()


def _without_channel(images: Tensor) -> Tensor:
    if images.dim() == 4 and images.shape[1] == 1:
        return images.squeeze(1)
    if images.dim() == 3:
        return images
    raise ConfigError(
        f"images have the shape {tuple(images.shape)}; it must be (batch, 1, height, width) or "
        "(batch, height, width)"
    )
