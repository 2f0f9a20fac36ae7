"""The settings in force and their sources, as --check-config prints them."""

from collections.abc import Mapping, Sequence

from daemon.config.credentials import find_static_credentials, incomplete_credentials
from daemon.config.settings import SETTINGS, Config
from daemon.core.errors import ConfigError


def effective_settings(config: Config, environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, value, source) of every setting and of the credentials, without any secret."""
    rows = [(row.name, row.shown(getattr(config, row.name)), config.sources[row.name]) for row in SETTINGS]
    return [*rows, ("credentials", *_shown_credentials(config, environ))]


def _shown_credentials(config: Config, environ: Mapping[str, str]) -> tuple[str, str]:
    if config.anonymous:
        return "not used", config.sources["anonymous"]
    try:
        found = find_static_credentials(environ, config.dotenv)
    except ConfigError as error:
        return "unusable", str(error)
    if found is None:
        halves = incomplete_credentials(environ, config.dotenv)
        return "no static keys", "; ".join((*halves, "boto3 looks further: profile, role, SSO"))
    # the last four characters of a short key are most of it
    masked = "****" + (found.access_key[-4:] if len(found.access_key) >= 8 else "")
    return masked + (" with a session token" if found.session_token else ""), found.source


def settings_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """The rows of `effective_settings` as aligned lines under a heading, without a final newline."""
    rows = [("setting", "value", "from"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}".rstrip() for name, value, source in rows)
