"""The command line: click, and nowhere else. `group` has what commands share; each command is a module of its name."""
