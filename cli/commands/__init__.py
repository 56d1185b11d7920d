"""One module per command of `tollway`: options in, lines out; the work is elsewhere."""
