"""Configuration: flags, environment, .env and AWS profile become one Config.

settings.py     the table: one row for each flag; start here to add one
parsers.py      text -> value
env_file.py     the .env file
credentials.py  static AWS keys
load.py         sources -> Config
effective.py    what --check-config prints
live.py         the configuration in force, and what a reload may change
"""

from daemon.config.credentials import ambient_aws, find_static_credentials, incomplete_credentials
from daemon.config.effective import effective_settings, settings_table
from daemon.config.live import LiveConfig, ReloadRefused, changed_settings
from daemon.config.load import ConfigProblems, load_config, reread_dotenv, unknown_settings
from daemon.config.parsers import Size, quoted
from daemon.config.settings import SETTINGS, Config, Setting, add_setting_flags, setting

__all__ = [
    "SETTINGS",
    "Config",
    "ConfigProblems",
    "LiveConfig",
    "ReloadRefused",
    "Setting",
    "Size",
    "add_setting_flags",
    "ambient_aws",
    "changed_settings",
    "effective_settings",
    "find_static_credentials",
    "incomplete_credentials",
    "load_config",
    "quoted",
    "reread_dotenv",
    "setting",
    "settings_table",
    "unknown_settings",
]
