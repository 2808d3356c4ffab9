"""Corpora: what their metadata looks like, and how it becomes a URL table."""
