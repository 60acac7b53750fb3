"""Networks written out in plain matrix formulas, with every way of leading errors down.

It shares no code with synthgrad and uses no autograd. A layer keeps what its backward needs; `down`
is the weight that errors are taken through, the layer's own unless a test puts another one there.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer:
    """A layer without parameters; `backward` returns the gradient of the input."""

    gradients: dict[str, Tensor]

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def backward(self, d: Tensor) -> Tensor:
        raise NotImplementedError


class Relu(Layer):
    def forward(self, x):
        self.active = (x > 0).to(x.dtype)
        return x * self.active

    def backward(self, d):
        return d * self.active


class Flat(Layer):
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, d):
        return d.reshape(self.shape)


class Linear(Layer):
    def __init__(self, layer: nn.Linear) -> None:
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.down = self.weight

    def forward(self, x):
        self.x = x
        return x @ self.weight.T + self.bias

    def backward(self, d):
        self.gradients = {"weight": d.T @ self.x, "bias": d.sum(0)}
        return d @ self.down


class Conv(Layer):
    """A convolution as a product of matrices: the patches of the input times the weight."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self.weight, self.bias = layer.weight.detach(), layer.bias.detach()
        self.down = self.weight
        self.options = {
            "kernel_size": layer.kernel_size,
            "stride": layer.stride,
            "padding": layer.padding,
        }

    def forward(self, x):
        self.size = x.shape[2:]
        self.patches = F.unfold(x, **self.options)  # [batch, in * k * k, positions]
        k, s, p = (self.options[name] for name in ("kernel_size", "stride", "padding"))
        size = [(n + 2 * p[i] - k[i]) // s[i] + 1 for i, n in enumerate(self.size)]
        y = self.weight.flatten(1) @ self.patches + self.bias[:, None]
        return y.reshape(len(x), len(self.weight), *size)

    def backward(self, d):
        flat = d.flatten(2)  # [batch, out, positions]
        weight = (flat @ self.patches.mT).sum(0)
        self.gradients = {"weight": weight.reshape(self.weight.shape), "bias": flat.sum((0, 2))}
        return F.fold(self.down.flatten(1).T @ flat, self.size, **self.options)


class BatchNorm(Layer):
    """In training mode, over the batch and, for feature maps, all positions."""

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        self.weight, self.bias, self.eps = layer.weight.detach(), layer.bias.detach(), layer.eps

    def forward(self, x):
        self.over = (0, *range(2, x.dim()))
        self.form = (1, -1) + (1,) * (x.dim() - 2)
        variance = x.var(self.over, correction=0, keepdim=True)
        self.deviation = (variance + self.eps).sqrt()
        self.normal = (x - x.mean(self.over, keepdim=True)) / self.deviation
        return self.normal * self.weight.reshape(self.form) + self.bias.reshape(self.form)

    def backward(self, d):
        self.gradients = {"weight": (d * self.normal).sum(self.over), "bias": d.sum(self.over)}
        d = d * self.weight.reshape(self.form)
        along = (d * self.normal).mean(self.over, keepdim=True)
        return (d - d.mean(self.over, keepdim=True) - self.normal * along) / self.deviation


KINDS = {
    nn.Linear: Linear,
    nn.Conv2d: Conv,
    nn.BatchNorm1d: BatchNorm,
    nn.BatchNorm2d: BatchNorm,
    nn.ReLU: lambda _: Relu(),
    nn.Flatten: lambda _: Flat(),
}


class Network:
    """An `nn.Sequential` of stages that are `nn.Sequential`s of layers, at its present weights."""

    def __init__(self, model: nn.Sequential) -> None:
        self.stages = [[KINDS[type(m)](m) for m in stage] for stage in model]
        self.outputs: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            for layer in stage:
                x = layer.forward(x)
            self.outputs.append(x)
        return x

    def backward(self, index: int, d: Tensor) -> Tensor:
        """Take an error down through one stage, noting the gradients of its parameters."""
        for layer in reversed(self.stages[index]):
            d = layer.backward(d)
        return d

    def gradients(self) -> list[Tensor]:
        """Of all parameters, in the order of `model.parameters()`."""
        found = []
        for layer in (layer for stage in self.stages for layer in stage):
            found += getattr(layer, "gradients", {}).values()
        return found


def cross_entropy_error(output: Tensor, y: Tensor) -> Tensor:
    """The gradient of the mean cross-entropy."""
    return (output.softmax(1) - F.one_hot(y, output.shape[1])) / len(y)


def chain(network: Network, error: Tensor, down: Callable[[Tensor], Tensor] | None = None) -> None:
    """Backprop; above the bottom stage errors go down through `down` of each weight, if given."""
    for index in reversed(range(len(network.stages))):
        for layer in network.stages[index]:
            if index and down and isinstance(layer, (Linear, Conv)):
                layer.down = down(layer.weight)
        error = network.backward(index, error)


def direct(network: Network, error: Tensor, matrices: Sequence[Tensor]) -> None:
    """Direct feedback alignment: [C, units] a stage but the top one."""
    network.backward(len(network.stages) - 1, error)
    for index, matrix in enumerate(matrices):
        network.backward(index, (error @ matrix).reshape(network.outputs[index].shape))


def kickback(network: Network, error: Tensor) -> None:
    """Each stage gets the error of its units' influence on the stage above alone."""
    top = len(network.stages) - 1
    signals = [network.backward(top, error)]
    for index in reversed(range(1, top)):
        h = network.outputs[index]
        v = torch.zeros_like(h)
        for unit in range(h.shape[1] if h.dim() == 4 else h[0].numel()):
            component = error[:, unit % error.shape[1]]
            if h.dim() == 4:
                v[:, unit] = component[:, None, None]
            else:
                v.reshape(len(h), -1)[:, unit] = component
        signals.insert(0, network.backward(index, v))
    for index, signal in enumerate(signals):
        network.backward(index, signal)
