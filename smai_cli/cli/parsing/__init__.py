"""Parse the command line: words, options, help and messages."""
