"""The rehearsal server: `script` is what it says, `faults` what goes wrong, `handler` how a connection is served."""
