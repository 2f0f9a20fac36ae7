"""The live configuration of a running daemon, which a reload replaces."""

from collections.abc import Callable

from daemon.config.settings import SETTINGS, Config, setting
from daemon.core.errors import ConfigError


class ReloadRefused(ConfigError):
    """The new configuration changes a setting that needs a restart."""

    code = "reload-refused"


class LiveConfig:
    """The configuration in force.

    Read `now` each time a reloadable setting is needed. Where that is too often, register with `follow`.
    """

    __slots__ = ("_followers", "now")

    def __init__(self, config: Config) -> None:
        self.now = config
        self._followers: list[Callable[[], None]] = []

    def follow(self, follower: Callable[[], None]) -> None:
        """Call `follower` after each change."""
        self._followers.append(follower)

    def change(self, config: Config) -> None:
        """Replace the configuration, then call the followers."""
        self.now = config
        for follower in self._followers:
            follower()


def changed_settings(old: Config, new: Config) -> tuple[str, ...]:
    """The names of the settings that differ. Raises ReloadRefused where one of them is not reloadable."""
    changed = tuple(row.name for row in SETTINGS if getattr(old, row.name) != getattr(new, row.name))
    if fixed := [name for name in changed if not setting(name).reloadable]:
        raise ReloadRefused(
            f"{', '.join(fixed)} cannot change while the daemon runs; nothing was changed",
            hint="restart the daemon to change that, or set it back and reload again",
        )
    return changed
