"""The rehearsal server: `script` is what it says, `server` how."""
