"""Seconds of single kernels from their shapes and one chip's rates."""
