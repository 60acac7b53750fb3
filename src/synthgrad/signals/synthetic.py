"""The synthetic gradient: a small network predicts dL/dh, so nobody waits for the stage above."""

from dataclasses import dataclass

from torch import Tensor, nn

from synthgrad.errors import ConfigError
from synthgrad.signals.contract import ErrorSignal, Lock, Need
from synthgrad.signals.units import Units
from synthgrad.synthesizers import Builder, Condition, NormalizedSynthesizer, resolve
from synthgrad.synthesizers.statistics import widened


@dataclass(frozen=True, kw_only=True)
class SyntheticGradient(ErrorSignal):
    """Hand down a predicted gradient M(h, c), and fit M to the gradient that arrives later.

    When to use it: to open the update and backward locks, to train over horizons that BPTT cannot
    hold, or to study credit assignment. When not: on one device and a network that fits it,
    backprop needs fewer operations and reaches the same accuracy in fewer updates.

    Math: the stage below is updated with d = scale * M(h, c) * u + mix * (g - scale * M(h, c) * u)
    where g = dL/dh arrives from above and u turns per-example gradients into the loss's units
    (1/B for a mean). M is fitted to g / u by least squares. Where the stage above was itself
    updated with a synthetic gradient, g is *bootstrapped*. With a trace decay lambda, what goes
    through the stage below as the next target is d + lambda * (g - d), while the stage's own
    parameters are trained with d: each target is then a mean of bootstraps over one, two, three
    stages, with weights (1 - lambda) * lambda^k.

    Args:
        synthesizer: "auto" (low-rank for feature maps, else linear), "linear", "mlp", "mirror",
            "conv", "low-rank", or a callable (shape_of_one_example, condition_size) ->
            nn.Module; use `functools.partial(sg.synthesizers.mlp, hidden=(256,))` for other sizes.
        condition: what M sees beside h; `OneHot(num_classes)` makes it cDNI. Pass the labels as
            `net(x, condition=y)`.
        mix: share of the true gradient in the signal: 0 is pure DNI, 1 is backprop (M is still
            fitted). Anything above 0 brings the locks back.
        scale: factor on the emitted prediction (not on the target).
        trace_decay: lambda: 0 bootstraps each target from the interface above, 1 fits every
            synthesizer to the true gradient. In between it trades the bias of a long chain of
            bootstraps for waiting: stages update as early as before, and fits follow the whole
            backward pass, so engines with a target delay refuse it. Above 0 it takes a second pass
            through each stage for its input's gradient (for one layer a stage: 6 units of work in
            place of 5, where backprop does 3).
        fit_first: number of fits before the signal is used. Until then the stage below is
            handed exactly zero.

        normalize_targets: fit M to targets divided by their running root mean square, and multiply
            its predictions by it. For optimizers whose step depends on the gradient's size; with
            Adam it does harm. The wavefront engine refuses it.

    Raises:
        ConfigError: mix or trace_decay is outside [0, 1], fit_first is negative, scale is not
            positive, or no synthesizer has that name.

    Equals backprop when mix = 1, or when M is an oracle; equals no signal when M is zero.

    Source: Jaderberg et al. 2017, section 2; per-example units are ours. The trace decay is their
    BP(lambda) (supplement A), across stages instead of time.

    Example:
        >>> import synthgrad as sg
        >>> sg.SyntheticGradient(condition=sg.OneHot(10), synthesizer="mirror").mix
        0.0
    """

    synthesizer: str | Builder = "auto"
    condition: Condition | None = None
    mix: float = 0.0
    scale: float = 1.0
    fit_first: int = 0
    trace_decay: float = 0.0
    normalize_targets: bool = False

    def __post_init__(self) -> None:
        resolve(self.synthesizer)
        if not 0.0 <= self.mix <= 1.0:
            raise ConfigError(f"mix={self.mix} must lie in [0, 1]: 0 is pure DNI, 1 is backprop.")
        if not 0.0 <= self.trace_decay <= 1.0:
            raise ConfigError(
                f"trace_decay={self.trace_decay} must lie in [0, 1]: 0 bootstraps from the next "
                "interface, 1 fits to the true gradient."
            )
        if self.fit_first < 0:
            raise ConfigError(f"fit_first={self.fit_first} is a number of fits; it can't be < 0.")
        if not self.scale > 0:
            raise ConfigError(
                f"scale={self.scale} must be positive; for no signal at all use sg.NoSignal()."
            )

    @property
    def needs(self) -> Need:
        """The gradient from above if any of it is mixed in, else nothing."""
        return Need.GRADIENT_FROM_ABOVE if self.mix else Need.NOTHING

    @property
    def opens(self) -> frozenset[Lock]:
        """Update and backward lock, unless the true gradient is mixed in."""
        return frozenset() if self.mix else frozenset({Lock.UPDATE, Lock.BACKWARD})

    @property
    def fits_target(self) -> bool:
        """Always: M is fitted to the gradient from above."""
        return True

    @property
    def passes_trace(self) -> bool:
        """If the trace decay is above 0."""
        return self.trace_decay > 0

    @property
    def observes_target(self) -> bool:
        """The `normalize_targets` argument."""
        return self.normalize_targets

    @property
    def conditioned_on(self) -> Condition | None:
        """The `condition` argument."""
        return self.condition

    def is_ready(self, num_fits: int) -> bool:
        """Return whether `fit_first` is over."""
        return num_fits >= self.fit_first

    def build(self, example: Tensor) -> nn.Module:
        """Make the synthesizer for activations like `example`, on its device, in its dtype."""
        size = self.condition.size if self.condition else 0
        module = resolve(self.synthesizer)(example.shape[1:], size)
        if self.normalize_targets:
            module = NormalizedSynthesizer(module)
        return module.to(device=example.device, dtype=example.dtype)

    def emit(
        self, prediction: Tensor | None, target: Tensor | None, units: Units, num_fits: int
    ) -> Tensor | None:
        """Return the synthetic gradient, mixed with the true one where `mix` asks for it."""
        if self.mix == 1.0:
            return target
        assert prediction is not None
        if not self.is_ready(num_fits):
            signal = prediction.new_zeros(prediction.shape)
        else:
            signal = prediction * (units.factor * self.scale)
        if self.mix == 0.0:
            return signal
        if target is None:  # the stage above does not use this tensor: its gradient is zero
            return signal * (1 - self.mix)
        return signal.lerp(target.to(signal.dtype), self.mix)

    def missed(self, signal: Tensor, target: Tensor) -> Tensor:
        """Return lambda * (target - signal)."""
        return (target.to(signal.dtype) - signal) * self.trace_decay

    def observe(self, module: nn.Module, target: Tensor, units: Units) -> None:
        """Take a target into the running scale of `normalize_targets`."""
        assert isinstance(module, NormalizedSynthesizer)
        module.observe(widened(target) / units.factor)
