"""The stacked rules: one parameter at a time, as a compiler gets them, and all of them together."""

import pytest
import torch
from torch import Tensor
from wavefronts import OPTIMIZERS

from synthgrad.engines.wavefront.optimizers import Rule

STACKED = [name for name in OPTIMIZERS if "not stacked" not in name]
SLOTS = [(0, 1, 2), (1, 2), (2,), (0, 2)]


def rows(values: Tensor, slots: tuple[int, ...]) -> Tensor:
    return values[list(slots)] if len(slots) > 1 else values[slots[0]]


@pytest.mark.parametrize("name", STACKED)
def test_both_ways_equal_torch_on_each_stage(name: str) -> None:
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    start = [draw(3, 4, 2), draw(3, 5), draw(3, 2, 2), draw(3)]
    theirs = [[torch.nn.Parameter(p[s].clone()) for s in range(3)] for p in start]
    optimizers = [OPTIMIZERS[name]([column[s] for column in theirs]) for s in range(3)]
    found = Rule.of(optimizers[0])
    assert found is not None
    rule: Rule = found
    rate = float(optimizers[0].param_groups[0]["lr"])
    rates = rate * torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    for optimizer, own in zip(optimizers, rates.tolist(), strict=True):
        optimizer.param_groups[0]["lr"] = own
    ours = {
        together: (
            [rows(p, at).clone() for p, at in zip(start, SLOTS, strict=True)],
            [
                [torch.zeros_like(rows(p, at)) for _ in rule.moments()]
                for p, at in zip(start, SLOTS, strict=True)
            ],
        )
        for together in (False, True)
    }
    for t in range(4):
        gradients = [draw(*p.shape) for p in start]
        corrections = rule.corrections(torch.full((3,), t + 1.0, dtype=torch.float64))
        for together, (parameters, moments) in ours.items():
            after = rule.step_all(
                parameters,
                [rows(g, at) for g, at in zip(gradients, SLOTS, strict=True)],
                moments,
                SLOTS,
                rates=rates,
                corrections=corrections,
                together=together,
            )
            ours[together] = [a[0] for a in after], [a[1:] for a in after]
        for column, gradient in zip(theirs, gradients, strict=True):
            for stage, parameter in enumerate(column):
                parameter.grad = gradient[stage].clone()
        for optimizer in optimizers:
            optimizer.step()
    for parameters, _ in ours.values():
        for at, parameter, column in zip(SLOTS, parameters, theirs, strict=True):
            expected = rows(torch.stack([p.detach() for p in column]), at)
            # The same numbers, multiplied and divided in another order.
            torch.testing.assert_close(parameter, expected, rtol=1e-12, atol=1e-15)
