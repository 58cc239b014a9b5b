"""Operands, stdin and files -> the Request. Start with `prompt` and `request`."""
