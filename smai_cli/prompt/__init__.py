"""What is asked: operands, stdin and files -> the Request. Begin with `prompt` and `request`."""
