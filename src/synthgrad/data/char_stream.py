"""A text as parallel streams of chunks, for recurrent models that carry their state along."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from synthgrad.errors import ConfigError


class CharStream:
    """An endless iterator of chunks of a text, each row going on where its last chunk stopped.

    The text is cut into `batch_size` parts of equal length, one a row; a chunk is the next
    `horizon` characters of every part. When the parts are at their ends a new pass begins at their
    beginnings: there, `begins` is true, and a model's state should begin anew. A chunk is cut from
    the tokens as it is asked for, so the memory in use is that of one chunk however long the text.
    The end of the text that does not fill a last chunk of all rows, fewer than
    batch_size * horizon characters, is left out.

    For validation take one pass, `num_chunks` chunks, from a new stream; a small `batch_size`
    leaves out the least and gives the characters the longest past.

    Args:
        tokens: int64, shape (num_characters,), as `CharText` holds them.
        batch_size: Rows.
        horizon: T, the steps of a chunk.

    Attributes:
        num_chunks: Chunks in one pass over the text.
        num_passes: Passes that are finished.

    Raises:
        ConfigError: A size is below 1, the tokens are not a vector, or they do not fill one chunk.

    Example:
        >>> from synthgrad.data import CharStream, CharText
        >>> stream = CharStream(CharText.of("abcdefghi").tokens, batch_size=2, horizon=2)
        >>> inputs, targets = next(stream)
        >>> inputs.tolist(), targets.tolist()
        ([[0, 4], [1, 5]], [[1, 5], [2, 6]])
        >>> inputs, targets = next(stream)
        >>> inputs.tolist(), targets.tolist(), stream.begins
        ([[2, 6], [3, 7]], [[3, 7], [4, 8]], True)
    """

    def __init__(self, tokens: Tensor, *, batch_size: int, horizon: int) -> None:
        """Cut the text into rows."""
        if batch_size < 1 or horizon < 1:
            raise ConfigError(
                f"batch_size is {batch_size} and horizon is {horizon}; both must be at least 1"
            )
        if tokens.dim() != 1:
            raise ConfigError(f"tokens have the shape {tuple(tokens.shape)}; it must be (number,)")
        # One more character than is read, because the last one is a target only.
        self.num_chunks = (len(tokens) - 1) // (batch_size * horizon)
        if self.num_chunks < 1:
            raise ConfigError(
                f"a text of {len(tokens)} characters does not fill one chunk of {batch_size} rows "
                f"and {horizon} steps, which needs {batch_size * horizon + 1}; "
                "take fewer rows, a shorter horizon or a longer text"
            )
        size = self.num_chunks * horizon * batch_size
        self._inputs = tokens[:size].view(batch_size, -1)
        self._targets = tokens[1 : size + 1].view(batch_size, -1)
        self._horizon = horizon
        self.num_passes = 0
        self._position = 0

    @property
    def begins(self) -> bool:
        """Whether the next chunk is the first of a pass, so that states should begin anew."""
        return self._position == 0

    def __iter__(self) -> CharStream:
        """Return the iterator itself."""
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        """Return the next inputs and targets, int64, shape (horizon, batch) each; never stops."""
        start = self._position * self._horizon
        steps = slice(start, start + self._horizon)
        chunk = self._inputs[:, steps].t().contiguous(), self._targets[:, steps].t().contiguous()
        self._position += 1
        if self._position == self.num_chunks:
            self.num_passes += 1
            self._position = 0
        return chunk

    def state_dict(self) -> dict[str, int]:
        """Return the place of the next chunk, for a checkpoint."""
        return {
            "num_passes": self.num_passes,
            "position": self._position,
            "num_chunks": self.num_chunks,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where `state_dict` was taken, from a stream of the same text and sizes.

        Raises:
            ConfigError: The state is of a stream with another number of chunks.
        """
        if state["num_chunks"] != self.num_chunks:
            raise ConfigError(
                f"the state is of a stream of {state['num_chunks']} chunks a pass, this one has "
                f"{self.num_chunks}; resume with the same text, batch_size and horizon"
            )
        self.num_passes = state["num_passes"]
        self._position = state["position"]
