"""`python -m elegan` is `elegan`."""

from elegan.cli import main

main()
