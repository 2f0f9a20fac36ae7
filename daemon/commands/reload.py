"""`reload`: have the daemon read its configuration and credentials again."""

from daemon.commands.question import ask
from daemon.config import Config


def reload(config: Config) -> int:
    """Raises DaemonUnreachable."""
    return int(ask(config, "reload")["exit"])
