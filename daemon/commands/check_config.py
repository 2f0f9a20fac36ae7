"""`--check-config`: print the settings in force and their sources, and check that a sync could start."""

import os

from daemon.config import Config, effective_settings, settings_table
from daemon.exit_status import ExitStatus
from daemon.printing import print_text
from daemon.wiring import require_startable


def check_config(config: Config) -> int:
    """Print the table, then raise ConfigError if a sync could not start."""
    print_text(settings_table(effective_settings(config, os.environ)))
    require_startable(config, os.environ)
    return ExitStatus.OK
