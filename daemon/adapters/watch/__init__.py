"""Watches manifests: inotify events where they work, polling where they do not."""

from daemon.adapters.watch.health import WatchHealth
from daemon.adapters.watch.watcher import Watcher

__all__ = ["WatchHealth", "Watcher"]
