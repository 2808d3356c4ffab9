"""What lmms-eval finds by the entry point `lmms_eval.models` of our package: `--model owl3` works where both are.

Source: lmms-eval 0.7's model registry; releases before it read `LMMS_EVAL_PLUGINS=owl3.eval.lmms_plugin` instead.
"""

from __future__ import annotations

from typing import Any

MODEL_ID = "owl3"
CLASS_PATH = "owl3.eval.lmms_plugin.models.owl3.Owl3"


def manifest() -> Any:
    """The `ModelManifest` of our model; lmms-eval imports the class itself when the model is asked for."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id=MODEL_ID, simple_class_path=CLASS_PATH)
