"""The command `smai batch`: its options, its input, and one run."""
