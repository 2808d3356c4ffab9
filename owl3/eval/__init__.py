"""Evaluation: every checkpoint scored, with the floors that give a score its meaning."""
