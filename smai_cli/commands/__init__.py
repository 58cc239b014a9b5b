"""The commands, one a file: flags -> values -> one call."""
