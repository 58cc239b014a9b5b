"""The command line, the only user of click. `group` is what commands share; each command has a module of its name."""
