"""The maps: valid SVG, the same bytes for the same numbers, and other bytes for others."""

from xml.etree import ElementTree

import pytest
import torch

from synthgrad.bench.figures.maps import rdm_svg, surface_svg

GRID = [-1.0, -0.5, 0.0, 0.5, 1.0]
BOWL = [[a * a + 2 * b * b for b in GRID] for a in GRID]
SLOPE = [[a + 40 * b for b in GRID] for a in GRID]
CHECKS = [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]]
RDMS = {
    "backprop": {"layer1": CHECKS, "layer2": CHECKS},
    "cDNI": {"layer1": [[0.0] * 3] * 3, "layer3": CHECKS},
}


def texts(svg):
    """What is written, which Matplotlib draws as glyphs and keeps beside them as comments."""
    ElementTree.fromstring(svg)
    return {line.strip(" <>!-") for line in svg.splitlines() if line.strip().startswith("<!--")}


def num_images(svg):
    return len(list(ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}image")))


def test_an_rdm_for_every_arm_and_layer():
    svg = rdm_svg(RDMS, {"backprop": {"layer1": 0.125, "layer2": 0.875}})
    assert {"backprop", "cDNI", "layer1", "layer2", "layer3", "0.88"} <= texts(svg)
    assert num_images(svg) == num_images(rdm_svg({"one": {"layer1": CHECKS}})) + 3


def test_no_rdms_give_an_empty_figure():
    assert num_images(rdm_svg({})) == 0


def test_two_surfaces_side_by_side():
    svg = surface_svg(GRID, GRID, BOWL, SLOPE, labels=("gradient", "random"))
    assert {"true loss", "implied by the synthesizer", "gradient", "random"} <= texts(svg)


@pytest.mark.parametrize(
    "true",
    [
        [[3.0] * 5] * 5,
        [[float("nan")] * 5] * 5,
        [[float("inf"), *row[1:]] for row in BOWL],
    ],
    ids=["flat", "unknown", "infinite in places"],
)
def test_a_loss_that_has_no_levels_is_drawn_too(true):
    texts(surface_svg(GRID, GRID, true, BOWL))
    texts(surface_svg(GRID, GRID, BOWL, true))


@pytest.mark.parametrize("columns", [4, 5])
def test_the_first_axis_of_a_surface_lies_horizontally(columns):
    """A grid that is not square would not fit the other way round."""
    texts(surface_svg(GRID, GRID[:columns], [row[:columns] for row in BOWL], [[0] * columns] * 5))


def test_the_same_numbers_give_the_same_bytes_and_others_give_others():
    assert rdm_svg(RDMS) == rdm_svg(RDMS)
    changed = {**RDMS, "backprop": {"layer1": CHECKS, "layer2": [[0.0] * 3] * 3}}
    assert rdm_svg(RDMS) != rdm_svg(changed)
    assert surface_svg(GRID, GRID, BOWL, SLOPE) == surface_svg(GRID, GRID, BOWL, SLOPE)
    assert surface_svg(GRID, GRID, BOWL, SLOPE) != surface_svg(GRID, GRID, BOWL, BOWL)


def test_tensors_may_be_given_as_lists():
    tensor = torch.tensor(CHECKS, dtype=torch.float64)
    assert rdm_svg({"a": {"b": tensor.tolist()}}) == rdm_svg({"a": {"b": CHECKS}})
