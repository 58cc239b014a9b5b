"""Pieces of bytes -> events -> chunks -> the outcome. Start with `pump`. Imports sseclient; does no I/O."""
