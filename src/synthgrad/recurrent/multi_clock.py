"""Networks that tick at different rates: the fast ones learn without waiting for the slow ones."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from synthgrad.errors import ConditionError, ConfigError, InterfaceError, RecurrentStateError
from synthgrad.recurrent.carry import Carry
from synthgrad.recurrent.channel import Channel, Mail
from synthgrad.recurrent.predicts_ahead import PredictsAhead
from synthgrad.recurrent.truncated import TruncatedBPTT
from synthgrad.signals import ErrorSignal, NoSignal, SyntheticGradient


@dataclass(frozen=True, kw_only=True, eq=False)
class ClockCarry:
    """What goes from one call of a `MultiClock` to the next; nothing in it has a graph.

    Attributes:
        networks: of each network, what it carries; None before its first window.
        mail: between each two neighbors, what was sent and not yet read.
    """

    networks: tuple[Carry | None, ...]
    mail: tuple[Mail | None, ...]

    def state_dict(self) -> dict[str, Any]:
        """Return it as nested tensors, for a checkpoint; `MultiClock.load_carry` reads it."""
        return {
            "networks": [None if carry is None else carry.state_dict() for carry in self.networks],
            "mail": [None if mail is None else mail.state_dict() for mail in self.mail],
        }


class MultiClock(nn.Module):
    """A line of recurrent networks, each slower than the one below, which sends it messages.

    Network i ticks every `periods[i]` steps; every `periods[i + 1]` steps it sends a message, made
    of its output, which is the input of the next network's tick. Each is updated after a *window*
    of `horizon` of its own ticks. What the network above will make of a message is not known when
    its sender is updated, so a synthesizer predicts the message's gradient. The true one arrives at
    the end of the window of the network above, and fits it.

    A network runs when its window is full, over all of its ticks at once: messages only go up, so
    nobody waits for it, and what is kept until then are messages without graphs. So memory is
    constant, the weights of a network may change only between its windows, and a checkpoint can be
    taken after any call.

    When to use it: where a slow network would hold up the updates of a fast one, or the fast
    one's graph over the slow one's window is too large. When not: if it fits, `coupled=True` is
    exact.

    Math: with m_k a message, L_B the mean loss over the window of its receiver B, u = 1/batch (1
    for a sum), and M the synthesizer, its sender A has the gradient of L_A + <c u M(m_k), m_k>,
    where c is the signal's `scale`; M is fitted by least squares to (dL_B/dm_k) / u, a mean over
    the window's messages and the batch. Where B is itself told a synthetic gradient, from above or
    at a cut in time, the target is bootstrapped.

    Args:
        networks: from the fastest to the slowest, each with its horizon and with what it is told
            at its cuts in time; `NoSignal` for plain truncated BPTT. Time first.
        periods: steps between two ticks of each network: 1 for the first, and each a multiple of
            the one before.
        messages: for each but the slowest network, a module from its outputs [..., features] to
            messages [..., size]. None hands on the outputs themselves.
        message_sizes: of each; needed where the receiver is no core of torch.
        signal: `SyntheticGradient`, or `NoSignal`, with which the senders are trained by their own
            losses alone; for all channels.
        coupled: no synthetic gradient: all windows are as long as that of the slowest network,
            and one graph leads through them all.

    Attributes:
        num_steps: that one call takes: the window of the first network.
        networks: as given.
        channels: between neighbors; each has a `synthesizer` (None for `NoSignal`).

    Raises:
        ConfigError: periods, horizons and numbers do not fit each other, or an option cannot work.

    Equals the coupled networks where the synthesizers are oracles, at messages and cuts in time,
    and the weights are held. With synthesizers of zero, no gradient comes from above.

    Source: Jaderberg et al. 2017, the section on networks that tick at different rates (two
    networks; "Multi-network"). Windows that are run when they are full are ours, and change no
    number.

    Example:
        >>> import synthgrad as sg, torch
        >>> fast = sg.recurrent.TruncatedBPTT(torch.nn.GRU(3, 8), horizon=2, signal=sg.NoSignal())
        >>> slow = sg.recurrent.TruncatedBPTT(torch.nn.GRU(8, 5), horizon=2, signal=sg.NoSignal())
        >>> clocks = sg.recurrent.MultiClock([fast, slow], periods=(1, 2))
        >>> optimizer, carry = torch.optim.Adam(clocks.parameters()), None
        >>> for x in torch.randn(6, clocks.num_steps, 4, 3):  # each call: [steps, batch, features]
        ...     outputs, carry = clocks(x, carry)  # None for a network whose window goes on
        ...     losses = [out.square().mean() for out in outputs if out is not None]
        ...     sum(losses).backward()
        ...     optimizer.step()  # a network without a gradient stays as it is
        ...     optimizer.zero_grad()
        >>> [len(out) for out in outputs], clocks.channels[0].num_fits
        ([2, 2], 3)
    """

    def __init__(
        self,
        networks: Sequence[TruncatedBPTT],
        *,
        periods: Sequence[int],
        messages: Sequence[nn.Module | None] | None = None,
        message_sizes: Sequence[int] | None = None,
        signal: ErrorSignal | None = None,
        coupled: bool = False,
    ) -> None:
        super().__init__()
        num_channels = len(networks) - 1
        _check_networks(networks)
        _check_periods(periods, [network.horizon for network in networks])
        for name, given in (("messages", messages), ("message_sizes", message_sizes)):
            if given is not None and len(given) != num_channels:
                raise ConfigError(
                    f"{len(given)} {name} for {len(networks)} networks: there is one between each "
                    f"two neighbors, {num_channels}"
                )
        if coupled and signal is not None:
            raise ConfigError(
                "coupled networks hand each other true gradients, so no signal is used; leave out "
                "one of coupled=True and signal"
            )
        self.periods = tuple(periods)
        self.coupled = coupled
        self.networks = nn.ModuleList(networks)
        windows = [n.horizon * p for n, p in zip(networks, periods, strict=True)]
        self._windows = [windows[-1]] * len(windows) if coupled else windows
        self.num_steps = self._windows[0]
        sizes = message_sizes or [_input_size(network) for network in networks[1:]]
        signal = SyntheticGradient() if signal is None else signal
        self.channels = nn.ModuleList(
            Channel(
                nn.Identity() if message is None else message,
                size=size,
                signal=NoSignal() if coupled else signal,
                mean=receiver.mean,
                like=next(receiver.core.parameters()),
            )
            for message, size, receiver in zip(
                messages or [None] * num_channels, sizes, networks[1:], strict=True
            )
        )

    def forward(
        self,
        inputs: Tensor,
        carry: ClockCarry | None = None,
        *,
        condition: Tensor | Sequence[Tensor | None] | None = None,
        loss_scale: float | Tensor = 1.0,
    ) -> tuple[tuple[Tensor | None, ...], ClockCarry]:
        """Go `num_steps` steps.

        Args:
            inputs: of the first network [num_steps, batch, ...].
            carry: what the call before returned; None to begin.
            condition: labels [messages, batch] for a signal that is conditioned: of what the first
                network sends in this call; or one such tensor a channel, where None does for a
                sender whose window does not end in this call.
            loss_scale: what a GradScaler multiplies the losses by.

        Returns:
            The outputs of each network [ticks, batch, ...] over the window that ends with this
            call, or None where it goes on; and the carry. Each network's loss is yours; of one
            without a loss, `(outputs * 0).sum()`. Do their backward before the next call.

        Raises:
            InterfaceError: shapes do not suit each other.
            RecurrentStateError: the carry is of other networks, or of another batch.
            ConditionError: the condition is missing or wrong.
        """
        kept = self._carry(carry)
        if inputs.dim() < 2 or len(inputs) != self.num_steps:
            raise InterfaceError(
                f"inputs have shape {tuple(inputs.shape)}, where a call takes the first network's "
                f"window: [{self.num_steps}, batch, ...]"
            )
        conditions = self._conditions(condition)
        networks, mail = list(kept.networks), list(kept.mail)
        outputs = list[Tensor | None](None for _ in networks)
        incoming = inputs
        for i in range(len(networks)):
            out, networks[i] = self._run(i, incoming, networks[i], loss_scale)
            outputs[i] = out
            if i == len(self.channels):
                break
            channel = self._channel(i)
            every = self.periods[i + 1] // self.periods[i]
            messages = channel(out[every - 1 :: every])
            if self.coupled:
                incoming = messages
                continue
            outputs[i], sent = channel.send(out, messages, conditions[i], loss_scale)
            mail[i] = full = sent.after(kept.mail[i])
            if len(full) * self.periods[i + 1] < self._windows[i + 1]:
                break
            incoming, mail[i] = channel.deliver(full, loss_scale), None
        return tuple(outputs), ClockCarry(networks=tuple(networks), mail=tuple(mail))

    def synthesizer_parameters(self) -> Iterator[nn.Parameter]:
        """Iterate over the parameters of all synthesizers, for an optimizer."""
        for part in (*self.networks, *self.channels):
            assert isinstance(part, PredictsAhead)
            yield from part.synthesizer_parameters()

    def load_carry(self, saved: Mapping[str, Any]) -> ClockCarry:
        """Read what `ClockCarry.state_dict` returned.

        Raises:
            RecurrentStateError: something in it is missing, or it is of other networks.
        """
        try:
            carry = ClockCarry(
                networks=tuple(c and Carry.from_state_dict(c) for c in saved["networks"]),
                mail=tuple(m and Mail.from_state_dict(m) for m in saved["mail"]),
            )
        except (KeyError, TypeError) as error:
            raise RecurrentStateError(f"this is no saved carry: {error} is missing") from error
        return self._carry(carry)

    def _run(
        self, i: int, inputs: Tensor, carry: Carry | None, loss_scale: float | Tensor
    ) -> tuple[Tensor, Carry]:
        """Run a network over its window: one chunk, or several where it is coupled."""
        network = self.networks[i]
        assert isinstance(network, TruncatedBPTT)
        parts = list[Tensor]()
        for part in inputs.split(network.horizon):
            out, carry = network(part, carry, loss_scale=loss_scale)
            parts.append(out)
        assert carry is not None
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), carry

    def _channel(self, i: int) -> Channel:
        channel = self.channels[i]
        assert isinstance(channel, Channel)
        return channel

    def _carry(self, carry: ClockCarry | None) -> ClockCarry:
        if carry is None:
            return ClockCarry(
                networks=(None,) * len(self.networks), mail=(None,) * len(self.channels)
            )
        found = len(carry.networks), len(carry.mail)
        if found != (len(self.networks), len(self.channels)):
            raise RecurrentStateError(
                f"the carry is of {found[0]} networks and {found[1]} channels, these clocks have "
                f"{len(self.networks)} and {len(self.channels)}"
            )
        return carry

    def _conditions(
        self, condition: Tensor | Sequence[Tensor | None] | None
    ) -> Sequence[Tensor | None]:
        num_channels = len(self.channels)
        if condition is None or isinstance(condition, Tensor):
            return [condition, *[None] * (num_channels - 1)]
        if len(condition) != num_channels:
            raise ConditionError(
                f"{len(condition)} conditions for {num_channels} channels: one for each, or None "
                "for a sender whose window goes on"
            )
        return condition


def _check_networks(networks: Sequence[TruncatedBPTT]) -> None:
    if len(networks) < 2:
        raise ConfigError(
            f"{len(networks)} networks send no messages; give two or more, or use TruncatedBPTT"
        )
    for network in networks:
        if getattr(network.core, "batch_first", False):
            raise ConfigError("a core on a clock takes time first; make it with batch_first=False")
        if network.signal.conditioned_on is not None:
            raise ConfigError(
                "the condition of a MultiClock is for its messages; give its networks signals "
                "without one"
            )


def _check_periods(periods: Sequence[int], horizons: Sequence[int]) -> None:
    if len(periods) != len(horizons):
        raise ConfigError(f"periods={tuple(periods)} for {len(horizons)} networks: one for each")
    if periods[0] != 1:
        raise ConfigError(
            f"periods={tuple(periods)}: a step is a tick of the first network, so it begins with 1"
        )
    for slower, faster in zip(periods[1:], periods[:-1], strict=True):
        if slower < 1 or slower % faster:
            raise ConfigError(
                f"periods={tuple(periods)}: each is a multiple of the one before, {slower} is none "
                f"of {faster}"
            )
    windows = [horizon * period for horizon, period in zip(horizons, periods, strict=True)]
    for i, (window, above) in enumerate(itertools.pairwise(windows)):
        if window % periods[i + 1] or above % window:
            raise ConfigError(
                f"network {i} has a window of {horizons[i]} ticks x {periods[i]} = {window} steps; "
                f"that must be a multiple of the next period, {periods[i + 1]}, and go into the "
                f"next window, {above}, without a rest. Change a horizon or a period"
            )


def _input_size(network: TruncatedBPTT) -> int:
    core = network.core
    if isinstance(core, (nn.RNNBase, nn.RNNCellBase)):
        return core.input_size
    raise ConfigError(
        f"the size of the messages that {type(core).__name__} reads is not known: give "
        "MultiClock(message_sizes=[...])"
    )
