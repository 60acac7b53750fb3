"""An interface works once a step: what would run it a second time is refused."""

import torch

from synthgrad.errors import InterfaceError


class Once:
    """Lets one backward pass through.

    Args:
        name: of the interface, for the message.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._spent = False

    def spend(self) -> None:
        """Note that backward is here.

        Raises:
            InterfaceError: it was here before, or was asked for a second derivative.
        """
        if self._spent or torch.is_grad_enabled():
            raise InterfaceError(
                "backward ran a second time, or with create_graph=True, through interface "
                f"{self.name!r}: its signal would count twice, and it has no second derivative. "
                "Add the losses up and call backward once, without create_graph."
            )
        self._spent = True


def inside_checkpoint() -> bool:
    """Whether this code runs inside an activation checkpoint, of either kind."""
    # The reentrant kind is an autograd Function, and inside of one forward-mode AD is off.
    if not torch._C._is_fwd_grad_enabled():
        return True
    # The other kind packs saved tensors by a hook of its own.
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # pyright: ignore[reportAttributeAccessIssue]
    return hooks is not None and getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"
