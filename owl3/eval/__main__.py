"""`python -m owl3.eval`: the process that evaluates. Imports torch once, however many requests it works off."""

from owl3.eval.runner import main

raise SystemExit(main())
