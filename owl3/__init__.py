"""The accountable way to train an mPLUG-Owl3-style model (arXiv:2408.04840)."""

__version__ = "0.1.0"
