"""Synthetic inputs: a stage runs on a prediction of its input, so that forward is unlocked too."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from synthgrad.choices import choose
from synthgrad.errors import ConfigError, InterfaceError
from synthgrad.trees import Tree, float_tensors

InputBuilder = Callable[[torch.Size, torch.Size], nn.Module]


def linear(input_shape: torch.Size, activation_shape: torch.Size) -> nn.Module:
    """Build a linear model from a network's input to an activation, both flattened.

    Args:
        input_shape: one example of the network's input, without the batch axis.
        activation_shape: one example's activation.
    """
    layer = nn.Linear(input_shape.numel(), activation_shape.numel())
    return nn.Sequential(nn.Flatten(), layer, nn.Unflatten(1, activation_shape))


def mlp(
    input_shape: torch.Size, activation_shape: torch.Size, *, hidden: int | None = None
) -> nn.Module:
    """Build a model with one hidden layer: Linear, batch norm, ReLU, Linear.

    Args:
        input_shape: one example of the network's input.
        activation_shape: one example's activation; the output is reshaped to it.
        hidden: width of the hidden layer; by default that of the activation, 1024 at most.
    """
    size = activation_shape.numel()
    width = min(size, 1024) if hidden is None else hidden
    return nn.Sequential(
        nn.Flatten(),
        # The batch norm that follows has its own bias.
        nn.Linear(input_shape.numel(), width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Linear(width, size),
        nn.Unflatten(1, activation_shape),
    )


def conv(
    input_shape: torch.Size, activation_shape: torch.Size, *, kernel_size: int = 5
) -> nn.Module:
    """Build a model from images to feature maps: two convolutions, with pooling between them.

    Args:
        input_shape: (channels, height, width) of the network's input.
        activation_shape: (channels, height, width) of the activation, no larger than the input.
        kernel_size: odd.

    Raises:
        ConfigError: either is no feature map, or the activation is larger than the input.
    """
    if not _shrinks(input_shape, activation_shape):
        raise ConfigError(
            f"a conv model of inputs {tuple(input_shape)} to activations "
            f"{tuple(activation_shape)}: both must be (channels, height, width), and the "
            "activation no larger than the input. Use model='mlp'."
        )
    channels, *places = activation_shape
    return nn.Sequential(
        nn.Conv2d(input_shape[0], channels, kernel_size, padding="same", bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((places[0], places[1])),
        nn.Conv2d(channels, channels, kernel_size, padding="same"),
    )


def automatic(input_shape: torch.Size, activation_shape: torch.Size) -> nn.Module:
    """Build a convolutional model where maps come from maps at least as large, else an MLP."""
    make = conv if _shrinks(input_shape, activation_shape) else mlp
    return make(input_shape, activation_shape)


MODELS: dict[str, InputBuilder] = {"auto": automatic, "linear": linear, "mlp": mlp, "conv": conv}


@dataclass(frozen=True, kw_only=True)
class SyntheticInput:
    """Run the stage above an interface on a prediction I(x) of its input, x the network's input.

    When to use it: with a signal that opens the update and backward lock, it opens the forward
    lock as well: each stage's update then depends on x, the labels and its own state alone (its
    own weights, its synthetic input, its signal), for any number of stages. When not: if stages
    run one after the other anyway. Each stage learns on what I(x) makes of its input, and is used
    on the true one: what I cannot predict costs accuracy.

    Math: in training the stage above runs on I(x) in place of h. I is fitted to h by least squares,
    (1/B) sum_b |I(x_b) - h_b|^2, summed over features: each output is then a regression of its own,
    whose step does not shrink with their number. No other gradient reaches I, and none from it
    reaches x or h. Where h itself was computed from a synthetic input, the target is bootstrapped.
    The gradient at I(x) is what the interface's signal is fitted to. In eval mode, and where
    gradients are disabled, the true activations are used.

    I's loss is its own, so what the network's loss is multiplied or divided by does not reach it:
    pass that as `net(x, condition=y, loss_scale=...)`, for k accumulated chunks whose losses are
    divided by k `loss_scale=1/k`.

    The last layer starts as torch makes it, not at zero as a synthesizer's does: at zero the stage
    above would see the same input for every example, and its first layer would learn only a bias.
    I is fitted in the steps in which the stage above, whose part it is, is updated.

    Args:
        model: "auto" (convolutional where maps come from maps at least as large, else an MLP),
            "linear", "mlp", "conv", or a callable (shape_of_one_input, shape_of_one_activation) ->
            nn.Module from x [batch, ...] to activations [batch, ...].

    Raises:
        ConfigError: no model has that name.

    Source: Jaderberg et al. 2017, section 2.2 and the supplement's complete unlock (one hidden
    layer, as in the synthesizers).

    Example:
        >>> import synthgrad as sg, torch
        >>> from torch import nn
        >>> model = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)])
        >>> x, y = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
        >>> signal = sg.SyntheticGradient(condition=sg.OneHot(8))
        >>> net = sg.decouple(
        ...     model, "every", signal=signal, synthetic_input=sg.SyntheticInput(), example_inputs=x
        ... )
        >>> nn.functional.cross_entropy(net(x, condition=y), y).backward()
        >>> list(net.synthetic_inputs)
        ['0', '1']
    """

    model: str | InputBuilder = "auto"

    def __post_init__(self) -> None:
        self._builder()

    def build(self, x: Tensor, h: Tensor) -> nn.Module:
        """Make the model that predicts activations like `h` from inputs like `x`, in x's dtype.

        Raises:
            ConfigError: `h` is not one activation an example of `x`, or the model does not give it.
        """
        if x.shape[:1] != h.shape[:1] or h.dim() < 2:
            raise ConfigError(
                f"a synthetic input predicts an activation for each example; the network's input "
                f"has shape {tuple(x.shape)} and the activation {tuple(h.shape)}."
            )
        module = self._builder()(x.shape[1:], h.shape[1:]).to(device=x.device, dtype=x.dtype)
        training = module.training
        with torch.no_grad():
            shape = module.eval()(x.detach()).shape
        module.train(training)
        if shape != h.shape:
            raise ConfigError(
                f"the model of the synthetic input returns shape {tuple(shape)} for an input of "
                f"shape {tuple(x.shape)}; the activation has shape {tuple(h.shape)}."
            )
        return module

    def _builder(self) -> InputBuilder:
        return choose("model", self.model, MODELS, "input_shape, activation_shape")


def network_input(given: Tree) -> Tensor:
    """Return the one floating-point tensor among the arguments of a network's call.

    Raises:
        InterfaceError: there is none, or more than one.
    """
    found = float_tensors(given)
    if len(found) != 1:
        raise InterfaceError(
            f"the network's inputs hold {len(found)} floating-point tensors; a synthetic input is "
            "predicted from exactly one. Pack them into one, or decouple the part of the network "
            "that takes one (what embeds tokens can stay outside)."
        )
    return found[0]


def _shrinks(input_shape: torch.Size, activation_shape: torch.Size) -> bool:
    """Whether both are feature maps, and the activation's are no larger than the input's."""
    if len(input_shape) != 3 or len(activation_shape) != 3:
        return False
    return all(a >= b for a, b in zip(input_shape[1:], activation_shape[1:], strict=True))
