"""One small file per benchmark; `owl3.eval.registry` finds them by name."""
