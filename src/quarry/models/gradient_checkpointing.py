"""Name the kind of gradient checkpointing that the compiler does; true and false are the others."""

SELECTIVE = "selective"
"""Recompute only element-wise operations."""
