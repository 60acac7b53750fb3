"""What a paper says beside what was measured, with a verdict and its reason."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from synthgrad.errors import ConfigError

Verdict = Literal["reproduced", "not reproduced", "not comparable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of a paper, and what became of it here.

    Args:
        claim: what it is about, in a few words: "time of training".
        paper: what the paper says; numbers that nobody checked are called "recalled".
        measured: what we measured, with its n and its interval.
        verdict: "reproduced", "not reproduced" or "not comparable".
        reason: what the verdict rests on, in a sentence.

    Raises:
        ConfigError: a text is empty, or the verdict is none of the three.
    """

    claim: str
    paper: str
    measured: str
    verdict: Verdict
    reason: str

    def __post_init__(self) -> None:
        """Check the texts and the verdict."""
        for name, text in asdict(self).items():
            if not text.strip():
                raise ConfigError(f"Claim({name}={text!r}): every part of a claim needs a text")
        if self.verdict not in VERDICTS:
            raise ConfigError(
                f"Claim(verdict={self.verdict!r}): the verdict is one of {', '.join(VERDICTS)}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the claim as an object of the JSON report."""
        return asdict(self)
