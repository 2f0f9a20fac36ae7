"""Greenlet pools for actors and image downloads, and the watchdog that ends stalled transfers."""
