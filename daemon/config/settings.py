"""The settings table. To add a flag, add a row to SETTINGS and a field to Config.

Tests then ask for the same name in .env.example, and for three sample values in tests/unit/test_config.py.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from daemon.config.parsers import (
    Size,
    boolean,
    endpoint,
    file_name,
    glob,
    one_of,
    path,
    quoted,
    region,
    seconds,
    size,
    whole_number,
)
from daemon.core.errors import ConfigError


class Setting(NamedTuple):
    """One row of the table, from which flag, environment variable, .env entry and --check-config are made.

    name        field of Config
    flag        `--name`; None: the setting has no flag
    env_names   variables, first match wins
    default     value where nothing sets it
    parse       text -> value; raises ConfigError
    metavar     what --help calls the value; "" for a boolean
    help        text of --help and of .env.example
    unset       how people read the value None or ()
    repeatable  the value is a tuple: one item for each flag; in a variable, items are separated by commas
    in_dotenv   False: read from the process environment only
    in_profile  the AWS profile may set it too
    reloadable  a reload may change it; the others need a restart
    """

    name: str
    flag: str | None
    env_names: tuple[str, ...]
    default: object
    parse: Callable[[str], object]
    metavar: str
    help: str
    unset: str = ""
    repeatable: bool = False
    in_dotenv: bool = True
    in_profile: bool = False
    reloadable: bool = False

    def from_flag(self, text: str) -> object:
        """The value of one flag; argparse's `type`. Raises ArgumentTypeError, which is a usage error."""
        if self.repeatable and "," in text:
            advice = f"repeat the flag, as {self.flag} 'a*' {self.flag} 'b*'; for a comma in a name write ?"
            raise argparse.ArgumentTypeError(f"{quoted(text)} holds a comma: {advice}")
        try:
            return self.parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(f"{error} ({error.hint or 'see --help'})") from None

    def from_variable(self, text: str) -> object:
        """The value of one variable of the environment or .env. Raises ConfigError."""
        if not self.repeatable:
            return self.parse(text)
        items = tuple(self.parse(item) for item in text.split(",") if item.strip())
        if not items:  # "," must not become "no restriction"
            self.parse("")
        return items

    def text(self, value: object) -> str:
        """The value as .env has it: the inverse of `from_variable`. "" is no value."""
        if value is None:
            return ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:.10g}"
        return ",".join(value) if isinstance(value, tuple) else str(value)

    def shown(self, value: object) -> str:
        """The value for people, in one printable line."""
        text = self.text(value) or self.unset
        return text if text.isprintable() else repr(text)[1:-1]


def _setting(name: str, default: object, parse: Callable[[str], object], metavar: str, help: str, **rest: Any) -> Setting:
    env_names = (f"ACTORSYNC_{name.upper()}", *rest.pop("aliases", ()))
    return Setting(name, f"--{name.replace('_', '-')}", env_names, default, parse, metavar, help, **rest)


SETTINGS: tuple[Setting, ...] = (
    _setting("data_dir", Path("data"), path, "DIR", "directory with actorsData.json and actors/"),
    _setting(
        "workers_per_actor",
        10,
        whole_number(1, 256),
        "N",
        "images downloaded at once for one actor, 1 to 256",
        reloadable=True,
    ),
    _setting("concurrent_actors", 5, whole_number(1, 256), "N", "actors synced at once, 1 to 256", reloadable=True),
    _setting(
        "processes",
        None,
        whole_number(1, 64),
        "N",
        "processes that share the actors of a --once, 1 to 64 and at most one for each concurrent actor",
        unset="by cores, up to 4",
        reloadable=True,  # a daemon has one process, so nothing changes
    ),
    _setting(
        "actors",
        (),
        glob,
        "GLOB",
        "sync only the actors whose name matches; repeat the flag, or separate by commas in the environment",
        unset="all",
        repeatable=True,
        reloadable=True,
    ),
    _setting(
        "exclude",
        (),
        glob,
        "GLOB",
        "leave out the actors whose name matches; repeat the flag, or separate by commas in the environment",
        unset="none",
        repeatable=True,
        reloadable=True,
    ),
    _setting(
        "endpoint_url",
        None,
        endpoint,
        "URL",
        "S3-compatible store that every unsigned S3 URL goes to, such as http://localhost:9000",
        unset="AWS",
        aliases=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        in_profile=True,
    ),
    _setting("anonymous", False, boolean, "", "send requests unsigned, for public buckets; no credentials are needed"),
    _setting(
        "request_payer",
        False,
        boolean,
        "",
        "pay for requests to Requester Pays buckets: AWS bills the owner of the credentials",
    ),
    _setting(
        "log_format",
        "auto",
        one_of("auto", "console", "json"),
        "FORMAT",
        "auto (console on a terminal, else json), console or json",
    ),
    _setting(
        "log_level",
        "info",
        one_of("debug", "info", "warning", "error"),
        "LEVEL",
        "debug, info, warning or error",
    ),
    _setting(
        "report",
        None,
        file_name,
        "FILE",
        "file for a JSON report of each run; - is standard output, and logs then go to standard error",
        unset="none",
    ),
    _setting(
        "min_free",
        Size(256 * 1024 * 1024),
        size,
        "SIZE",
        "free disk space below which no download starts, such as 500M or 2G; 0 is no limit",
    ),
    _setting(
        "strict",
        False,
        boolean,
        "",
        "count a missing or pending manifest as a failure: exit 1",
        reloadable=True,
    ),
    _setting("connect_timeout", 5.0, seconds(), "SECONDS", "time limit for opening a connection"),
    _setting("read_timeout", 30.0, seconds(), "SECONDS", "time limit for the next bytes of a response"),
    _setting(
        "image_timeout",
        60.0,
        seconds(),
        "SECONDS",
        "time without progress after which a download is retried",
        reloadable=True,
    ),
    _setting(
        "max_attempts",
        5,
        whole_number(1, 20),
        "N",
        "requests for one image before it counts as failed, 1 to 20",
        reloadable=True,
    ),
    _setting(
        "outage_seconds",
        120.0,
        seconds(zero=True),
        "SECONDS",
        "how long downloads wait for an endpoint in an outage, from its last good response; 0 is no wait",
        reloadable=True,
    ),
    _setting(
        "quiet_seconds",
        0.3,
        seconds(),
        "SECONDS",
        "time without further changes after which a changed actor is synced",
        reloadable=True,
    ),
    _setting(
        "max_wait_seconds",
        3.0,
        seconds(),
        "SECONDS",
        "longest wait from an actor's first change to its sync, however often it changes",
        reloadable=True,
    ),
    _setting(
        "rescan_seconds",
        None,
        seconds(),
        "SECONDS",
        "interval between full rescans, which catch missed events",
        unset="by size: 30 up to 12,000 actors",
        reloadable=True,
    ),
    _setting(
        "alive_seconds",
        300.0,
        seconds(),
        "SECONDS",
        "interval between the log lines of an idle daemon, which show that it is alive",
        reloadable=True,
    ),
    _setting(
        "grace_seconds",
        10.0,
        seconds(zero=True),
        "SECONDS",
        "time that running downloads get to finish after a stop signal; 0 is none",
        reloadable=True,
    ),
    _setting(
        "accept_opaque_etags",
        False,
        boolean,
        "",
        "this store's ETags look like MD5 but are not: verify by length",
        reloadable=True,
    ),
    _setting(
        "env_file",
        Path(".env"),
        path,
        "FILE",
        "file of settings and keys to read instead of .env in the working directory",
        unset="none",
        in_dotenv=False,
        reloadable=True,  # a .env may appear or go; which file is named cannot change in a running process
    ),
    _setting(
        "region",
        None,
        region,
        "REGION",
        "region of buckets whose URL names none",
        unset="the profile's, else us-west-1",
        aliases=("AWS_REGION", "AWS_DEFAULT_REGION"),
    ),
    _setting(
        "ca_bundle",
        None,
        file_name,
        "FILE",
        "file or directory of the certificates to trust, instead of the system's",
        unset="the system's",
        aliases=("AWS_CA_BUNDLE",),
        in_profile=True,
    ),
)


class Config(NamedTuple):
    """The settings in force: one field for each row of SETTINGS, then what loading found out.

    `env_file` is the file that was read, None where there was none. `dotenv` holds its entries, secrets too: never show it.
    `dotenv_once`: the file was a pipe, which is not read again.
    `sources`: field -> "flag --x", "ACTORSYNC_X in the environment", "ACTORSYNC_X in .env", "profile x in ~/.aws/config" or
    "default".
    """

    data_dir: Path
    workers_per_actor: int
    concurrent_actors: int
    processes: int | None
    actors: tuple[str, ...]
    exclude: tuple[str, ...]
    endpoint_url: str | None
    anonymous: bool
    request_payer: bool
    log_format: str
    log_level: str
    report: str | None
    min_free: Size
    strict: bool
    connect_timeout: float
    read_timeout: float
    image_timeout: float
    max_attempts: int
    outage_seconds: float
    quiet_seconds: float
    max_wait_seconds: float
    rescan_seconds: float | None
    alive_seconds: float
    grace_seconds: float
    accept_opaque_etags: bool
    env_file: Path | None
    region: str | None
    ca_bundle: str | None
    dotenv: Mapping[str, str]
    dotenv_once: bool
    sources: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{row.name}={getattr(self, row.name)!r}' for row in SETTINGS)})"


_BY_NAME = {row.name: row for row in SETTINGS}


def setting(name: str) -> Setting:
    """The row with this name. Raises KeyError."""
    return _BY_NAME[name]


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; its dest is the field's name, its default None: "not given".

    A boolean also gets `--no-x`, for one that the environment has set. A wrong value is a usage error.
    """
    for row in SETTINGS:
        if row.flag is not None:
            _add_flag(parser, row, row.flag)


def _add_flag(parser: argparse.ArgumentParser, row: Setting, flag: str) -> None:
    text = f"{row.help} (default {row.shown(row.default)}; {', '.join(row.env_names)})"
    if isinstance(row.default, bool):
        parser.add_argument(flag, dest=row.name, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        action = "append" if row.repeatable else "store"
        parser.add_argument(
            flag, dest=row.name, action=action, type=row.from_flag, default=None, metavar=row.metavar, help=text
        )
