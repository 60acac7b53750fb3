"""What the search for stationary points shows: which are the loss's, and where training ends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from synthgrad.bench.figures.panels import Dot, Dots, Line, Panel, dots_data, lines_data
from synthgrad.bench.findings import Findings, Picture
from synthgrad.bench.records.events import RunRecord
from synthgrad.bench.scoring.claims import Claim
from synthgrad.bench.scoring.formats import MISSING
from synthgrad.bench.scoring.table import Table

_ZERO = 1e-5  # over the median gradient at random weights: below it a gradient counts as zero
_GROWTH = 1e-7  # growth rates this near to zero are those of a line of rest points
_NEAR = 0.01  # a run ended at a rest point that lies nearer than this, relative to its weights


@dataclass(frozen=True, kw_only=True)
class _Point:
    """A rest point: of the dynamics with SG, or of the loss.

    Args:
        loss: mean loss.
        gradient: norm of the true gradient, over its scale.
        update: norm of the network's update with the best synthesizer, over the gradient's scale.
        sg_growth: largest growth rate of the dynamics with SG.
        growth: that of gradient descent; None at rest points of SG.
    """

    loss: float
    gradient: float
    update: float
    sg_growth: float
    growth: float | None

    @property
    def is_of_loss(self) -> bool:
        """Whether it is stationary for the loss."""
        return self.gradient < _ZERO

    @property
    def is_of_sg(self) -> bool:
        """Whether the network stands still with the best synthesizer."""
        return self.update < _ZERO


@dataclass(frozen=True, kw_only=True)
class _Case:
    """All records of one problem.

    Args:
        label: for people.
        rest: distinct rest points with SG.
        critical: distinct critical points of the loss.
        ends: of training runs: "both", "only SG", "unsettled" or "diverged".
        excess: loss at the end over that of backprop from the same start, where SG was settled.
    """

    label: str
    rest: Sequence[_Point]
    critical: Sequence[_Point]
    ends: Sequence[str]
    excess: Sequence[float]

    @property
    def added(self) -> list[_Point]:
        """Rest points of SG that are none of the loss."""
        return [point for point in self.rest if not point.is_of_loss]

    @property
    def lost(self) -> list[_Point]:
        """Critical points of the loss at which a network with the best synthesizer moves."""
        return [point for point in self.critical if not point.is_of_sg]

    @property
    def num_unstable(self) -> int:
        """Minima of the loss that repel the dynamics with SG, or are left by them."""
        return sum(point.sg_growth > _GROWTH or not point.is_of_sg for point in self.minima)

    @property
    def minima(self) -> list[_Point]:
        """Critical points that attract gradient descent."""
        return [p for p in self.critical if p.growth is not None and p.growth < -_GROWTH]


def find(records: Sequence[RunRecord]) -> Findings:
    """Return the claims, tables and figures; a pure function."""
    cases = _read(records)
    return Findings(
        claims=tuple(_claims(cases)),
        tables=(_points_table(cases), _critical_table(cases), _ends_table(cases)),
        pictures=tuple(_pictures(cases, records)),
    )


def _read(records: Sequence[RunRecord]) -> list[_Case]:
    by_arm = dict[str, list[RunRecord]]()
    for record in records:
        if record.status == "finished":
            by_arm.setdefault(record.arm, []).append(record)
    return [_case(group) for group in by_arm.values()]


def _case(records: Sequence[RunRecord]) -> _Case:
    rest, critical = list[_Point](), list[_Point]()
    ends, excess = list[str](), list[float]()
    for record in records:
        scale = record.of_kind("scale")[0]["gradient"]
        rest += _distinct(record.of_kind("sg")[0], scale)
        critical += _distinct(record.of_kind("loss")[0], scale)
        runs = record.of_kind("runs")[0]
        for index, loss in enumerate(runs["mean_loss"]):
            end = _end(runs, index, scale)
            ends.append(end)
            if end in ("both", "only SG"):
                excess.append(loss - runs["backprop_loss"][index])
    return _Case(label=records[0].label, rest=rest, critical=critical, ends=ends, excess=excess)


def _distinct(event: Mapping[str, Any], scale: float) -> list[_Point]:
    """Return an event's points, each once: those of one loss and one gradient are the same.

    Units may be exchanged or change their signs, which gives other weights for the same network.
    """
    growths = event.get("growth") or [None] * len(event["mean_loss"])
    found = dict[tuple[float, float], _Point]()
    for loss, gradient, update, sg_growth, growth in zip(
        event["mean_loss"],
        event["gradient"],
        event["update"],
        event["sg_growth"],
        growths,
        strict=True,
    ):
        point = _Point(
            loss=loss,
            gradient=gradient / scale,
            update=update / scale,
            sg_growth=sg_growth,
            growth=growth,
        )
        found.setdefault((round(loss, 7), round(point.gradient, 5)), point)
    return list(found.values())


def _end(runs: Mapping[str, Any], index: int, scale: float) -> str:
    if runs["mean_loss"][index] is None:
        return "diverged"
    moved, gradient = runs["to_rest"][index], runs["rest_gradient"][index]
    if moved is None or moved > _NEAR:
        return "unsettled"
    return "both" if gradient / scale < _ZERO else "only SG"


def _points_table(cases: Sequence[_Case]) -> Table:
    rows = list[tuple[str, ...]]()
    for case in cases:
        for name, points in (
            ("both", [p for p in case.rest if p.is_of_loss]),
            ("only SG", case.added),
        ):
            if not points:
                rows.append((case.label, name, "0", *[MISSING] * 5))
                continue
            growths = [point.sg_growth for point in points]
            gradients = [point.gradient for point in points]
            losses = [point.loss for point in points]
            rows.append(
                (
                    case.label,
                    name,
                    str(len(points)),
                    str(sum(growth < -_GROWTH for growth in growths)),
                    str(sum(abs(growth) <= _GROWTH for growth in growths)),
                    str(sum(growth > _GROWTH for growth in growths)),
                    f"{min(gradients):.1e} to {max(gradients):.1e}",
                    f"{min(losses):.4f} to {max(losses):.4f}",
                )
            )
    return Table(
        title="Points where network and synthesizer stand still",
        columns=(
            "Problem",
            "Stationary for",
            "Found",
            "Attracting",
            "On a line",
            "Repelling",
            "True gradient",
            "Loss",
        ),
        rows=tuple(rows),
        notes=(
            "Distinct points, by loss and gradient. The true gradient is over its median norm at "
            f"random weights; below {_ZERO:g} it counts as zero. Attracting: every eigenvalue of "
            "the joint dynamics has a negative real part; on a line: the largest is zero, so that "
            "the point is one of a continuum.",
        ),
        num_text_columns=2,
    )


def _critical_table(cases: Sequence[_Case]) -> Table:
    return Table(
        title="Critical points of the loss, with SG at its best",
        columns=(
            "Problem",
            "Found",
            "Network stands still",
            "Network moves",
            "Largest update",
            "Minima",
            "... not held with SG",
        ),
        rows=tuple(
            (
                case.label,
                str(len(case.critical)),
                str(len(case.critical) - len(case.lost)),
                str(len(case.lost)),
                f"{max((point.update for point in case.critical), default=0.0):.1e}",
                str(len(case.minima)),
                str(case.num_unstable),
            )
            for case in cases
        ),
        notes=(
            "At each critical point the synthesizer is set to its least-squares fit, and the "
            "network's update is measured, over the median gradient at random weights. A minimum "
            "is not held where that update is not zero, or where the joint dynamics repel.",
        ),
    )


def _ends_table(cases: Sequence[_Case]) -> Table:
    names = ("both", "only SG", "unsettled", "diverged")
    return Table(
        title="Where training runs with SG end",
        columns=(
            "Problem",
            "Runs",
            *("Stationary for " + name for name in names[:2]),
            *(name.capitalize() for name in names[2:]),
            "Loss over backprop's, median",
        ),
        rows=tuple(
            (
                case.label,
                str(len(case.ends)),
                *(str(case.ends.count(name)) for name in names),
                f"{median(case.excess):+.1e}" if case.excess else MISSING,
            )
            for case in cases
        ),
        notes=(
            "A run ended at a rest point where the root that a search from its last weights leads "
            f"to is nearer than {100 * _NEAR:g} % of their norm. The loss is compared with "
            "backprop's from the same start, of the runs that ended at one.",
        ),
    )


def _claims(cases: Sequence[_Case]) -> list[Claim]:
    if not cases:
        return []
    adding = [case for case in cases if case.added]
    num_added = sum(len(case.added) for case in cases)
    num_ended = sum(case.ends.count("only SG") for case in cases)
    ended = [case for case in cases if "only SG" in case.ends]
    lost = sum(len(case.lost) for case in cases)
    num_critical = sum(len(case.critical) for case in cases)
    found = f"{num_critical - lost} of {num_critical} critical points of the loss"
    losing = "; ".join(case.label for case in cases if case.lost)
    return [
        Claim(
            claim="SG adds stationary points",
            paper="SG may add stationary points that the loss does not have (recalled)",
            measured=(
                f"{num_added} distinct points with a true gradient that is not zero, on "
                f"{len(adding)} of {len(cases)} problems"
            ),
            verdict="reproduced" if num_added else "not reproduced",
            reason=_names("Found on: ", adding) if adding else "None was found.",
        ),
        Claim(
            claim="Training ends at added points",
            paper=(
                "gradient descent on the approximate gradient can converge to stationary points "
                "that would not have arisen"
            ),
            measured=f"{num_ended} of {sum(len(case.ends) for case in cases)} runs end at one",
            verdict="reproduced" if num_ended else "not reproduced",
            reason=_names("On: ", ended) if ended else "No run ended at one.",
        ),
        Claim(
            claim="Critical points of the loss stay stationary",
            paper="they are preserved, since SG can output zero there (recalled)",
            measured=f"with the synthesizer at its least-squares fit the network rests at {found}",
            # The statement asks what SG can do, and this is what the fitted SG does: where the two
            # agree it is borne out, where they do not it is not refuted.
            verdict="reproduced" if num_critical and not lost else "not comparable",
            reason=(
                "A synthesizer that outputs zero stops the network anywhere, so as stated it "
                "holds; but that is not the fitted one unless every example's gradient is zero."
                + (f" The network moves on: {losing}." if losing else "")
            ),
        ),
    ]


def _names(start: str, cases: Sequence[_Case]) -> str:
    return start + "; ".join(case.label for case in cases) + "."


def _pictures(cases: Sequence[_Case], records: Sequence[RunRecord]) -> list[Picture]:
    shown = dict[str, RunRecord]()
    for record in sorted(records, key=lambda r: r.seed):
        if record.of_kind("plane"):
            shown.setdefault(record.arm, record)
    planes = [_plane(record) for record in shown.values()]
    pictures = [
        Picture(
            name="planes",
            title="Paths of training in the plane of the two weights, first seed",
            kind="lines",
            data=lines_data(planes),
            note=(
                "From the same starts, the bias not shown. Where SG can rest was derived: the "
                "minimum itself for the MSE with y; logistic regression on the least-squares score "
                "for the log loss; and without y the best multiple of each direction, an ellipse "
                "through zero and the minimum; and zero itself, where h says nothing and SG keeps "
                "what it had learned."
            ),
        )
    ]
    dots = Dots(
        title="where SG rests",
        x_label="true gradient, over its median norm at random weights",
        rows=[
            Dot(
                label=case.label,
                value=median(max(p.gradient, 1e-17) for p in case.rest),
                points=[max(point.gradient, 1e-17) for point in case.rest],
            )
            for case in cases
            if case.rest
        ],
        log_x=True,
        marks=(_ZERO,),
    )
    if dots.rows:
        pictures.append(
            Picture(
                name="gradients",
                title="The true gradient at points where network and synthesizer stand still",
                kind="dots",
                data=dots_data([dots]),
                note=f"Every distinct point; the dot is their median. Right of {_ZERO:g}: only SG.",
            )
        )
    return pictures if planes else pictures[1:]


def _plane(record: RunRecord) -> Panel:
    plane = record.of_kind("plane")[0]
    lines = [
        Line(label=label, x=x, y=y)
        for key, label in (("backprop", "gradient descent"), ("sg", "with SG"))
        for x, y in map(_known, plane[key])
    ]
    if plane["rest"][0]:
        lines.append(Line(label="where SG can rest", x=plane["rest"][0], y=plane["rest"][1]))
    if plane["minimum"]:
        w1, w2 = plane["minimum"]
        lines.append(Line(label="minimum of the loss", x=[w1], y=[w2]))
    return Panel(title=record.label, x_label="first weight", y_label="second weight", lines=lines)


def _known(path: Sequence[Sequence[float | None]]) -> tuple[list[float], list[float]]:
    """Return a path up to where it became infinite."""
    x, y = list[float](), list[float]()
    for first, second in zip(*path, strict=True):
        if first is None or second is None:
            break
        x.append(first)
        y.append(second)
    return x, y
