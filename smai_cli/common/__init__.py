"""What every package may use: clocks, files, text, signals, the lines of -v."""
