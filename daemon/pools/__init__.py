"""Greenlet pools: actors, image downloads, and the watchdog that ends a transfer which stalls."""
