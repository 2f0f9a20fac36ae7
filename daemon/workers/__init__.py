"""Worker processes on this machine, which share the actors of one run with the process that owns it."""
