"""Peak memory of one accelerator: allocated, reserved and device bytes, by named parts."""

from predictor.memory.peak import Peak, peak_memory

__all__ = ["Peak", "peak_memory"]
