"""The claim that this paper makes of its boldest variants: about 2 % error is reached still."""

from synthgrad.bench.scoring.arm_summary import ArmSummary
from synthgrad.bench.scoring.claims import Claim, Verdict
from synthgrad.experiments.accuracy import error, error_text
from synthgrad.experiments.jaderberg2017.numbers import PAPER_ITERATIONS
from synthgrad.experiments.verdicts import judged

_ABOUT_TWO = 2.5


def judge_two_percent(claim: str, paper: str, arm: ArmSummary | None) -> Claim | None:
    """Judge whether an arm reaches an error of about 2 %, which is below 2.5 % here.

    A run that is shorter than the paper's can show that it does, and cannot show that it does not.

    Args:
        claim: what it is about.
        paper: what the paper says.
        arm: the arm; without a test error there is nothing to judge.
    """
    value = error(arm)
    if arm is None or value is None:
        return None
    verdict: Verdict
    if value < _ABOUT_TWO:
        verdict, reason = "reproduced", f"Below {_ABOUT_TWO} %."
    elif arm.iterations < PAPER_ITERATIONS:
        verdict = "not comparable"
        reason = f"Not below {_ABOUT_TWO} %, after fewer iterations than the paper's 500,000."
    else:
        verdict, reason = "not reproduced", f"Not below {_ABOUT_TWO} %."
    return judged(
        claim=claim,
        paper=paper,
        measured=f"{error_text(arm)} % after {arm.iterations:,} iterations",
        num_seeds=arm.num_seeds,
        verdict=verdict,
        reason=reason,
    )
