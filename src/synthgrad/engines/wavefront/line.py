"""What the engine keeps for batches of one shape."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from synthgrad.engines.wavefront.layout import Layout
from synthgrad.engines.wavefront.plan import Carry, Outcome
from synthgrad.engines.wavefront.synthesis import predict, weights_for_later
from synthgrad.stage import Chain
from synthgrad.validate import restored


@dataclass
class Line:
    """Batches of one shape on their way up.

    Attributes:
        blank: inputs and labels of the shape, with which the line is drained.
        carry: what is on the way.
        run: runs a tick, from (inputs, labels, rows of masks or None).
    """

    blank: tuple[Tensor, Tensor]
    carry: Carry
    run: Callable[[Tensor, Tensor, Tensor | None], Outcome]


def empty_carry(chain: Chain, layout: Layout, inputs: Tensor, labels: Tensor) -> Carry:
    """Return the carry of a line without batches; its numbers are never used.

    Args:
        chain: the stages.
        layout: of the chain.
        inputs: of one batch.
        labels: of one batch.
    """
    count = len(chain)
    h = inputs
    ups = list[Tensor]()
    dtype = layout.plan.autocast
    with (
        restored(chain),
        torch.no_grad(),
        torch.autocast(
            inputs.device.type, dtype[1] if dtype else torch.bfloat16, enabled=dtype is not None
        ),
    ):
        for stage in chain:
            h = stage(h)
            ups.append(torch.zeros_like(h))
        all_labels = torch.stack([labels] * count)
        outputs = [
            torch.stack([ups[s] for s in at]) if len(at := cut.slots) != 1 else ups[at[0]]
            for cut in layout.plan.cuts
        ]
        predictions = [
            predict(cut, layout.state, h, all_labels)[0]
            for cut, h in zip(layout.plan.cuts, outputs, strict=True)
        ]
    needs = [weights_for_later(layout.plan, cut, layout.state) for cut in layout.plan.cuts]
    rates = torch.zeros(count, dtype=torch.float64, device=inputs.device)
    return Carry(
        outputs=outputs,
        predictions=[p if p is None else torch.zeros_like(p) for p in predictions],
        weights=[{name: value.clone() for name, value in own.items()} for own in needs],
        labels=all_labels,
        rates=rates,
        synthesizer_rates=rates.clone(),
    )
