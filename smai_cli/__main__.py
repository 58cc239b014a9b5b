"""`python -m smai_cli`, the same as `smai`."""

from smai_cli.main import main

main()
