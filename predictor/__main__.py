"""``python -m predictor`` is the command line."""

from predictor.cli import main

main()
