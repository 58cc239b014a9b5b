"""The mock server: `script` makes its answers, `faults` its failures, and `handler` serves a connection."""
