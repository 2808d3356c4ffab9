"""What lmms-eval's plugin hook reads: model name, which is also the module's, to class name."""

AVAILABLE_MODELS = {"owl3": "Owl3"}
