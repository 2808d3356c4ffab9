"""Samples out of shards and instruction files: who is beside whom, what is asked, what it costs.

Read `run.py` for the story, `draw.py` for who is drawn, one module per builder for what it makes of them.
"""
