import re

import pytest

from synthgrad.bench.figures.dots import dots_svg
from synthgrad.bench.figures.lines import lines_svg
from synthgrad.bench.figures.panels import Dot, Dots, Line, Panel, dots_data, lines_data


def labels(svg):
    """Return the texts of a figure, which Matplotlib leaves as comments beside their outlines."""
    return re.findall(r"<!-- (.*?) -->", svg)


@pytest.mark.parametrize("high", [3.0, 300.0])
def test_logarithmic_axes_are_labeled_with_plain_numbers(high):
    panel = Panel(
        title="",
        x_label="",
        y_label="",
        lines=[Line(label="a", x=[1, high], y=[1, high])],
        log_x=True,
        log_y=True,
    )
    dots = Dots(title="", x_label="", rows=[Dot(label="a", value=1, points=[high])], log_x=True)
    for svg in (lines_svg(lines_data([panel])), dots_svg(dots_data([dots]))):
        assert "1" in labels(svg)
        assert not any("$" in text for text in labels(svg))
