"""Every stage at once on one device; equal stages as one batched kernel."""

from synthgrad.engines.wavefront.engine import Wavefront

__all__ = ["Wavefront"]
