"""What the wavefront engine cannot run."""

import torch

from synthgrad.errors import EngineError
from synthgrad.signals import Need
from synthgrad.stage import Chain


def refuse_signals(chain: Chain) -> None:
    """Raise an EngineError for signals that wait for something, or note more than a tick does."""
    for index, signal in enumerate(chain.signals()):
        if signal.observes_target:
            raise EngineError(
                f"the signal on stage {index}, {signal}, keeps a running scale of its targets, "
                "which a compiled tick does not: use normalize_targets=False."
            )
        if signal.needs is Need.GRADIENT_FROM_ABOVE or signal.passes_trace:
            raise EngineError(
                f"the signal on stage {index}, {signal}, needs the gradient from above, and in "
                "a wavefront the stage above is still working on the batch before."
            )
        if signal.fits_loss:
            raise EngineError(
                f"the signal on stage {index}, {signal}, is fitted to the loss at the output, "
                "which in a wavefront comes several ticks later: use sg.decouple, or "
                "engines.Sequential."
            )


def device_of(chain: Chain) -> torch.device:
    """Return where a chain's parameters and buffers are.

    Raises:
        EngineError: they are on several devices, or on one that is neither CPU nor CUDA.
    """
    tensors = [*chain.parameters(), *chain.buffers()]
    devices = sorted({str(t.device) for t in tensors}) or ["cpu"]
    if len(devices) > 1 or torch.device(devices[0]).type not in ("cpu", "cuda"):
        raise EngineError(
            f"the chain is on {', '.join(devices)}; the wavefront engine runs all stages on one "
            "CPU or CUDA device: chain.to(device), or use engines.Sequential."
        )
    return torch.device(devices[0])
