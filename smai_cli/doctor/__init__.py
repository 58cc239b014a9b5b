"""The checks of `smai doctor`."""
