"""What a pipeline cannot do, found before anything is started."""

from collections.abc import Sequence

from synthgrad.engines.rules import traces, waits
from synthgrad.errors import ConfigError
from synthgrad.stage import Chain


def check_options(
    mode: str, late_fit: str, max_in_flight: int, timeout_s: float, replicas: int
) -> None:
    """Refuse values that cannot work with any chain.

    Raises:
        ConfigError: which, and why.
    """
    if mode not in ("ordered", "free"):
        raise ConfigError(f"mode={mode!r} must be 'ordered' or 'free'.")
    if late_fit not in ("stored", "again"):
        raise ConfigError(f"late_fit={late_fit!r} must be 'stored' or 'again'.")
    if max_in_flight < 1 or not timeout_s > 0:
        raise ConfigError(
            f"max_in_flight={max_in_flight} must be 1 or more, and timeout_s={timeout_s} positive."
        )
    if mode == "free" and replicas > 1:
        raise ConfigError(
            f"mode='free' with replicas={replicas}: replicas of a stage must apply the same "
            "targets at the same time to average their gradients. Use mode='ordered'."
        )


def check_signals(
    chain: Chain, delays: Sequence[int] | None, max_in_flight: int, probability: float
) -> None:
    """Refuse signals and delays that ranks apart cannot honor.

    Raises:
        ConfigError: which, and why.
    """
    for index, stage in enumerate(chain):
        signal = None if stage.interface is None else stage.interface.signal
        if signal is not None and signal.fits_loss:
            raise ConfigError(
                f"the signal on stage {index}, {signal}, is fitted to the loss at the output, "
                "which another rank has: use sg.decouple, or engines.Sequential."
            )
        if (waits(stage) or traces(stage)) and (delays is None or probability < 1):
            raise ConfigError(
                f"the signal on stage {index}, {signal}, needs the gradient from above of every "
                "batch: use mode='ordered', target_delays=0 and update_probability=1, and expect "
                "the ranks to wait for each other."
            )
    if delays is not None and max(delays, default=0) >= max_in_flight:
        raise ConfigError(
            f"target_delays={tuple(delays)} with max_in_flight={max_in_flight}: a batch is under "
            "way with as many before it as the delay says, so max_in_flight must be larger."
        )
