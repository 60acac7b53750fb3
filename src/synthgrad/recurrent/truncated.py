"""Truncated BPTT with a synthetic gradient at the cut: learn beyond the horizon, chunk by chunk."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from synthgrad.errors import ConditionError, ConfigError, InterfaceError, RecurrentStateError
from synthgrad.recurrent.auxiliary import Auxiliary
from synthgrad.recurrent.boundary import Arrival, Departure, enter, leave
from synthgrad.recurrent.carry import Carry
from synthgrad.recurrent.chunks import Chunk, cut
from synthgrad.recurrent.cores import InitialState, calling, detached
from synthgrad.recurrent.known_jacobians import known_jacobian
from synthgrad.recurrent.layout import Layout
from synthgrad.recurrent.predicts_ahead import PredictsAhead, check_ahead
from synthgrad.recurrent.rows import Rows, check_rows
from synthgrad.recurrent.traces import Past, jacobian
from synthgrad.signals import ErrorSignal, SyntheticGradient, Units
from synthgrad.trees import Tree, float_tensors, replace_float_tensors


class TruncatedBPTT(PredictsAhead):
    """Run a recurrent core over a long sequence in chunks, each with one ordinary backward.

    A chunk's graph ends where the chunk does. What the steps after it would have sent back is
    predicted from the state there by a synthesizer, which sees every tensor of the state; when the
    next chunk's backward reaches its first state, that gradient is what the synthesizer is fitted
    to (*bootstrapped*, since the next chunk ends in a synthetic gradient as well).

    When to use it: for sequences that BPTT cannot hold, or streams without an end; memory does not
    grow with their length. When not: if BPTT over the whole sequence fits. It is exact, and on
    sequences of a few horizons cheaper; see docs/recurrent.md.

    Math: with s_k the state before chunk k, L_k its loss, u the unit of a per-example gradient (1/B
    for a mean) and M the synthesizer, the core's gradient is that of L_k + <c u M(s_k+1), s_k+1>,
    where c is the signal's `scale`; M(s_k) is fitted by least squares to
    (dL_k/ds_k + gamma J_k' u M(s_k+1)) / u with J_k = ds_k+1/ds_k, and to exactly zero where the
    sequence has ended. With a trace decay lambda, the error e_k of that fit also corrects what was
    predicted before, M(s_j) by (gamma lambda)^(k-j) (J_k-1 ... J_j)' e_k.

    Args:
        core: nn.RNN, nn.LSTM or nn.GRU (as it is, time first or batch first), nn.RNNCell,
            nn.LSTMCell or nn.GRUCell, or a module `(x_t, state) -> (output_t, state)` whose state
            is nested tuples, lists and dicts of tensors with the batch on their first axis.
        horizon: T, the most steps that a chunk may have.
        signal: `SyntheticGradient`, which may be conditioned, or `NoSignal`, which makes it plain
            truncated BPTT. `mix` has to be 0: there is no true gradient at the cut.
        gamma: discount in the target, in [0, 1]. None is the signal's scale: what reaches the core
            is then what the target is made of, in one pass. Another value takes a second pass
            through each chunk, to its first state.
        auxiliary: the auxiliary task, if any.
        initial_state: of your own: a function of the batch size. The cores of torch start from
            zeros without it.
        reduction: of your loss over the batch: "mean" or "sum".
        trace_length: boundaries that a signal with a trace decay looks back over. Each takes
            batch * size^2 numbers, where size is that of one example's state. Each chunk takes
            size^3 operations a step and example for nn.RNN, nn.LSTM, nn.GRU of one layer and for
            the cells of torch, and as many backward passes as that size for any other core: traces
            are for small cores.

    Attributes:
        core: as given.
        synthesizer: M; None for `NoSignal`.
        auxiliary_head: of the auxiliary task, or None.

    Raises:
        ConfigError: an option cannot work.

    Equals truncated BPTT while M is zero, and BPTT over the whole sequence where M is an oracle and
    the weights are held. In `eval()`, or without gradients, it only runs the core.

    Source: Jaderberg et al. 2017, sections 2.1 and 3.2; zero at the end, and the unit, are ours.
    Traces: Pemberton & Costa 2024, accumulate BP(lambda), by Jacobians of chunks in place of one
    trace for each pair of a state's element and a synthesizer's weight: the same sums while the
    weights are held and the sequence has at most trace_length boundaries.

    Example:
        >>> import synthgrad as sg, torch
        >>> rnn = sg.recurrent.TruncatedBPTT(torch.nn.LSTM(4, 8), horizon=3)
        >>> x, carry = torch.randn(7, 2, 4), None
        >>> for chunk in rnn.chunks(x):
        ...     outputs, carry = rnn(chunk.inputs, carry, ends=chunk.ends)
        ...     outputs.square().mean().backward()
        >>> rnn.synthesizer.last.weight.grad is not None
        True
    """

    def __init__(
        self,
        core: nn.Module,
        *,
        horizon: int,
        signal: ErrorSignal | None = None,
        gamma: float | None = None,
        auxiliary: Auxiliary | None = None,
        initial_state: InitialState | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        trace_length: int = 32,
    ) -> None:
        signal = SyntheticGradient() if signal is None else signal
        _check(horizon, gamma, trace_length, reduction)
        check_ahead(signal, "a gradient from the future: at a cut in time")
        super().__init__(signal, mean=reduction == "mean")
        self.core = core
        self.horizon = horizon
        self.trace_length = trace_length
        self._calling = calling(core, initial_state)
        start = self._calling.initial(core, 2)  # two, because of batch norm
        size = Layout.of(start, self._calling.batch_axis).size
        like = float_tensors(start)[0]
        known = isinstance(signal, SyntheticGradient)
        self._scale = signal.scale if known else 1.0
        self._trace_decay = signal.trace_decay if known else 0.0
        self.gamma = self._scale if gamma is None else gamma
        self.synthesizer = signal.build(like.new_zeros(2, size))
        self.auxiliary_head = auxiliary.build(core, size, like) if auxiliary else None

    def chunks(self, inputs: Tensor, lengths: Tensor | None = None) -> Iterator[Chunk]:
        """Yield a batch of whole sequences in chunks of `horizon` steps.

        Args:
            inputs: [time, batch, ...], or batch first where the core is.
            lengths: of the sequences [batch], where they are padded to one length.

        Raises:
            InterfaceError: the lengths do not suit the inputs, or there is no step.
        """
        return cut(inputs, self.horizon, lengths, time_axis=self._calling.time_axis)

    def forward(
        self,
        inputs: Tensor,
        carry: Carry | Tree | None = None,
        *,
        mask: Tensor | None = None,
        ends: bool | Tensor = False,
        condition: Tensor | None = None,
        loss_scale: float | Tensor = 1.0,
    ) -> tuple[Tensor, Carry]:
        """Run the core over one chunk.

        Args:
            inputs: [time, batch, ...] of at most `horizon` steps, or batch first where the core is.
            carry: what the chunk before returned; a state to start from, with its graph if it has
                one; or None for the initial state.
            mask: bool, shaped like the first two axes of `inputs`: the steps that belong to the
                sequence; True first. After them the row's sequence has ended.
            ends: the sequence ends within this chunk: for all rows at once, or [batch] bool.
            condition: labels [batch] for a signal that is conditioned.
            loss_scale: what a GradScaler multiplies the loss by.

        Returns:
            The outputs, whose loss is yours (of a chunk without one, `(outputs * 0).sum()`), and
            the carry for the next chunk.

        Raises:
            InterfaceError: shapes do not suit each other, or the chunk is longer than the horizon.
            RecurrentStateError: the state is not what it was.
            ConditionError: the condition is missing or wrong.
        """
        batch_size = self._check_inputs(inputs)
        kept = self._carry(carry, batch_size)
        layout = Layout.of(kept.state, self._calling.batch_axis)
        if layout.batch_size != batch_size:
            raise RecurrentStateError(
                f"the inputs hold {batch_size} examples, and the state {layout.batch_size}; the "
                "batch stays the same from chunk to chunk"
            )
        rows = Rows.of(inputs, mask, ends, self._calling.time_axis)
        if not self.predicts:
            outputs, after = self._run(inputs, kept.state, layout)
            return outputs, Carry(state=detached(after))
        units = Units.of(batch_size, mean=self.mean, loss_scale=loss_scale)
        code = self._code(condition, batch_size, float_tensors(kept.state)[0].dtype)
        return self._decoupled(inputs, kept, layout, rows, code, units)

    def restart(self, carry: Carry, rows: Tensor | None = None) -> Carry:
        """Let rows begin a new sequence: from the initial state, with nothing left to fit.

        Args:
            carry: of a chunk.
            rows: [batch] bool; None for all.

        Raises:
            InterfaceError: there are not so many rows.
        """
        layout = Layout.of(carry.state, self._calling.batch_axis)
        fresh = self._calling.initial(self.core, layout.batch_size)
        if rows is None:
            return Carry(state=fresh)
        check_rows("rows", rows, layout.batch_size)
        state = replace_float_tensors(carry.state, layout.choose(rows, fresh, carry.state))
        awaits = None if carry.awaits is None else carry.awaits & ~rows
        return Carry(state=state, awaits=awaits, code=carry.code, past=carry.past)

    def load_carry(self, saved: Mapping[str, Any]) -> Carry:
        """Read what `Carry.state_dict` returned.

        Raises:
            RecurrentStateError: something in it is missing.
        """
        try:
            return Carry.from_state_dict(saved)
        except (KeyError, TypeError) as error:
            raise RecurrentStateError(f"this is no saved carry: {error} is missing") from error

    def _run(self, inputs: Tensor, state: Tree, layout: Layout) -> tuple[Tensor, Tree]:
        outputs, after = self._calling.run(self.core, inputs, state)
        layout.check(Layout.of(after, layout.batch_axis))
        return outputs, after

    def _decoupled(
        self,
        inputs: Tensor,
        kept: Carry,
        layout: Layout,
        rows: Rows,
        code: Tensor | None,
        units: Units,
    ) -> tuple[Tensor, Carry]:
        first = float_tensors(kept.state)
        arrival = self._arrival(kept, layout, units)
        if arrival is not None:
            first = enter(first, self._predict_again(kept, layout), arrival)
        outputs, after = self._run(inputs, replace_float_tensors(kept.state, first), layout)
        last = float_tensors(after)
        flat = layout.flat(last)
        with torch.set_grad_enabled(rows.ends is not None):
            prediction = self.predict(flat.detach(), code, of="a state")
        there = rows.with_more(prediction.detach())
        emitted = self.signal.emit(there, None, units, self.num_fits)
        assert emitted is not None
        if arrival is not None:
            arrival.beyond = self._beyond(layout, first, last, there * units.factor, emitted)
        departure = Departure(
            signals=[s.to(t.dtype) for s, t in zip(layout.split(emitted), last, strict=True)],
            signal=self.signal,
            units=units,
            ends=rows.ends,
        )
        outputs = leave(
            outputs,
            last,
            departure,
            own_loss=self._auxiliary_loss(outputs, there, rows, units),
            prediction=None if rows.ends is None else prediction,
        )
        if rows.all_end:
            return outputs, Carry(state=detached(after))
        past = self._past(kept, layout, inputs, first, flat) if self._trace_decay else ()
        return outputs, Carry(state=detached(after), awaits=rows.more, code=code, past=past)

    def _arrival(self, kept: Carry, layout: Layout, units: Units) -> Arrival | None:
        if kept.awaits is None:
            return None
        return Arrival(
            layout=layout,
            signal=self.signal,
            units=units,
            awaits=kept.awaits,
            past=kept.past,
            decay=self.gamma * self._trace_decay,
            on_target=self.on_target,
        )

    def _predict_again(self, kept: Carry, layout: Layout) -> Tensor:
        """Evaluate M at the chunk's start, with its graph, and at the boundaries before.

        Again, and not by the graph of the evaluation that the signal came from: the optimizer's
        step between the two has changed the weights that such a graph holds.
        """
        here = layout.flat([t.detach() for t in float_tensors(kept.state)])
        codes = [kept.code, *(p.code for p in kept.past)]
        given = [c for c in codes if c is not None]
        flats = torch.cat([here, *(p.flat for p in kept.past)])
        return self.predict(flats, torch.cat(given) if given else None, of="a state")

    def _beyond(
        self,
        layout: Layout,
        first: Sequence[Tensor],
        last: Sequence[Tensor],
        predicted: Tensor,
        emitted: Tensor,
    ) -> Tensor | None:
        """Return what the target lacks: it is discounted by gamma, and what is emitted is not."""
        if self.gamma == self._scale and self.signal.is_ready(self.num_fits):
            return None
        missing = layout.split(predicted * self.gamma - emitted)
        pairs = [(t, m) for t, m in zip(last, missing, strict=True) if t.requires_grad]
        found = torch.autograd.grad(
            [t for t, _ in pairs],
            first,
            [m.to(t.dtype) for t, m in pairs],
            retain_graph=True,
            materialize_grads=True,
        )
        return layout.flat(found)

    def _past(
        self, kept: Carry, layout: Layout, inputs: Tensor, first: Sequence[Tensor], flat: Tensor
    ) -> tuple[Past, ...]:
        if kept.awaits is None:
            return ()
        found = known_jacobian(self.core, inputs.movedim(self._calling.time_axis, 0), first)
        newest = Past(
            flat=layout.flat([t.detach() for t in first]),
            code=kept.code,
            awaits=kept.awaits,
            jacobian=jacobian(layout, flat, first) if found is None else found.to(flat),
        )
        return (newest, *kept.past)[: self.trace_length]

    def _auxiliary_loss(
        self, outputs: Tensor, there: Tensor, rows: Rows, units: Units
    ) -> Tensor | None:
        if self.auxiliary_head is None:
            return None
        foreseen = self.auxiliary_head(outputs.select(self._calling.time_axis, 0))
        return self.auxiliary_head.loss(foreseen, there, rows.more, units)

    def _code(self, condition: Tensor | None, batch_size: int, dtype: torch.dtype) -> Tensor | None:
        encoder = self.signal.conditioned_on
        if encoder is None:
            return None
        if condition is None or condition.shape[:1] != (batch_size,):
            raise ConditionError(
                f"the signal is conditioned: pass condition=labels, one for each of the "
                f"{batch_size} examples"
                + ("" if condition is None else f", not of shape {tuple(condition.shape)}")
            )
        return encoder.encode(condition, dtype)

    def _carry(self, carry: Carry | Tree | None, batch_size: int) -> Carry:
        if isinstance(carry, Carry):
            return carry
        if carry is None:
            carry = self._calling.initial(self.core, batch_size)
        return Carry(state=carry)

    def _check_inputs(self, inputs: Tensor) -> int:
        if inputs.dim() < 2:
            raise InterfaceError(
                f"inputs of shape {tuple(inputs.shape)} have no time and batch axis; one sequence "
                "alone is x.unsqueeze(1)"
            )
        num_steps = inputs.shape[self._calling.time_axis]
        if not 1 <= num_steps <= self.horizon:
            raise InterfaceError(
                f"a chunk of shape {tuple(inputs.shape)} has {num_steps} steps, where the horizon "
                f"is {self.horizon}; cut a sequence by `for chunk in rnn.chunks(x)`"
            )
        return inputs.shape[1 - self._calling.time_axis]


def _check(
    horizon: int,
    gamma: float | None,
    trace_length: int,
    reduction: str,
) -> None:
    if horizon < 1:
        raise ConfigError(f"horizon={horizon} is a number of steps: 1 or more")
    if gamma is not None and not 0.0 <= gamma <= 1.0:
        raise ConfigError(f"gamma={gamma} is a discount: it lies in [0, 1]")
    if trace_length < 1:
        raise ConfigError(f"trace_length={trace_length} is a number of boundaries: 1 or more")
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"reduction={reduction!r} must be 'mean' or 'sum'")
