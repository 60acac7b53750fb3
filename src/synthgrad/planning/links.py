"""Links that a plan can be asked for by name: round numbers, to be replaced by one's own."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from synthgrad.planning.measurements import Link

LinkName = Literal["machine", "lan", "wan", "home"]
LINK_NAMES: tuple[LinkName, ...] = get_args(LinkName)
_MBIT = 1e6 / 8  # bytes a second


@dataclass(frozen=True, kw_only=True)
class NamedLink:
    """A link with its name for people."""

    label: str
    latency_ms: float
    bandwidth_mbit: float

    def link(self, measured: Link) -> Link:
        """Return it; what a message costs a stage itself is taken from a measured link."""
        return replace(
            Link(message_s=measured.message_s),
            latency_s=self.latency_ms / 1000,
            bandwidth_bytes_per_s=self.bandwidth_mbit * _MBIT,
        )


LINKS: dict[LinkName, NamedLink] = {
    "machine": NamedLink(label="one machine", latency_ms=0.05, bandwidth_mbit=16_000),
    "lan": NamedLink(label="LAN", latency_ms=0.2, bandwidth_mbit=10_000),
    "wan": NamedLink(label="WAN", latency_ms=20.0, bandwidth_mbit=1_000),
    "home": NamedLink(label="home links", latency_ms=30.0, bandwidth_mbit=40),
}
