"""Which stages a rank has, and who its neighbors are: lines of ranks, one line a replica."""

from dataclasses import dataclass

from synthgrad.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Place:
    """The place of one rank.

    Attributes:
        rank: its number among all.
        index: its place in its line, from the bottom.
        length: how many ranks make a line.
        replica: which line.
        num_replicas: how many lines.
        stages: the numbers of its stages.
    """

    rank: int
    index: int
    length: int
    replica: int
    num_replicas: int
    stages: range

    @classmethod
    def of(cls, rank: int, num_ranks: int, num_replicas: int, num_stages: int) -> "Place":
        """Spread the stages over the ranks of a line, as equal in number as can be.

        Raises:
            ConfigError: the numbers do not fit together.
        """
        if num_replicas < 1 or num_ranks % num_replicas:
            raise ConfigError(
                f"{num_ranks} ranks cannot be divided into replicas={num_replicas} equal lines: "
                "start a multiple of it."
            )
        length = num_ranks // num_replicas
        if length > num_stages:
            raise ConfigError(
                f"{num_ranks} ranks in {num_replicas} line(s) are {length} a line, and the chain "
                f"has {num_stages} stages: start {num_stages * num_replicas} ranks or fewer, or "
                "cut the model into more stages."
            )
        replica, index = divmod(rank, length)
        bounds = [num_stages * k // length for k in range(length + 1)]
        return cls(
            rank=rank,
            index=index,
            length=length,
            replica=replica,
            num_replicas=num_replicas,
            stages=range(bounds[index], bounds[index + 1]),
        )

    @property
    def below(self) -> int | None:
        """The rank of the neighbor below; None at the bottom."""
        return None if self.index == 0 else self.rank - 1

    @property
    def above(self) -> int | None:
        """The rank of the neighbor above; None at the top."""
        return None if self.index == self.length - 1 else self.rank + 1
