"""Training: three stages on one engine seam, each from the verified export of the one before."""
