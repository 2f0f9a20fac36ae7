"""More processes on this machine: they share the actors of a run."""
