"""Run the command line with ``python -m autodistill``."""

from autodistill.cli import main

main()
