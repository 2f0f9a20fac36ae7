"""The commands that people type, one module each: each takes a Config and returns the exit status."""
