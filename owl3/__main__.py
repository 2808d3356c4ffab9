"""`python -m owl3`: the same as the `owl3` command."""

from owl3.cli import run

run()
