"""The Owl3 model: Qwen2 and SigLIP joined by hyper attention (mPLUG-Owl3, arXiv:2408.04840)."""
