"""The command line: its words, options, help and messages."""
