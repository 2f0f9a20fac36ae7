"""What is decided: no I/O, no clock, no randomness, no gevent; time and jitter are arguments."""
