"""`python -m wmzoo`."""

from .cli import main

main()
