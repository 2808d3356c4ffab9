"""Owl3 as a model of lmms-eval: `LMMS_EVAL_PLUGINS=owl3.eval.lmms_plugin lmms-eval --model owl3 …`."""
