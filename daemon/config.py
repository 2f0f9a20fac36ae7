"""What a run was told: each setting once in a table, read from flag > environment > .env > default."""

import argparse
import ipaddress
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from daemon.core.errors import ConfigError
from daemon.core.model import AwsProfile, Credentials, Secret
from daemon.env_file import EnvFile, default_env_file, read_env_file

SEE_EXAMPLE = "see .env.example"
MOST_SECONDS = 31_536_000.0  # a year; beyond it timers overflow instead of waiting
MOST_SHOWN = 24  # characters of a wrong value; keys and tokens, pasted into the wrong place, are longer


class ConfigProblems(ConfigError):
    """Everything that is wrong with the configuration, at once; `problems` holds at least one."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        hints = dict.fromkeys(problem.hint for problem in problems if problem.hint)
        super().__init__("\n".join(str(problem) for problem in problems), hint="; ".join(hints))
        self.problems = tuple(problems)


# --- text -> value: each raises ConfigError("'text' is not ...") without saying where the text came from --------------


def quoted(text: str) -> str:
    """The text for a message, unless it is long enough to be a key."""
    return repr(text) if len(text) <= MOST_SHOWN else "***"


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        digits = text.strip()
        # not int(): that takes 1_0 and digits of other scripts as well
        if not re.fullmatch(r"[0-9]{1,9}", digits) or not low <= int(digits) <= high:
            raise ConfigError(f"{quoted(text)} is not a whole number from {low} to {high}")
        return int(digits)

    return parse


def _seconds(*, zero: bool = False) -> Callable[[str], float]:
    """Plain decimal seconds, with or without an `s`: "0.3", "5", "5s"."""

    def parse(text: str) -> float:
        match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*s?", text.strip())
        value = float(match[1]) if match else math.nan
        if not (0 <= value <= MOST_SECONDS and (zero or value > 0)):
            lowest = "from 0" if zero else "above 0"
            raise ConfigError(f"{quoted(text)} is not a number of seconds {lowest}, at most {MOST_SECONDS:.0f}")
        return value

    return parse


def _boolean(text: str) -> bool:
    word = text.strip().lower()
    if word in ("yes", "true", "1", "on"):
        return True
    if word in ("no", "false", "0", "off"):
        return False
    raise ConfigError(f"{quoted(text)} is neither yes nor no")


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        word = text.strip().lower()
        if word not in words:
            raise ConfigError(f"{quoted(text)} is not one of {', '.join(words)}")
        return word

    return parse


def _file_name(text: str) -> str:
    if not text.strip():
        raise ConfigError(f"{quoted(text)} names no file")
    if "\0" in text:
        raise ConfigError("*** holds a NUL character, which no file name has")
    return text


def _path(text: str) -> Path:
    return Path(_file_name(text))


def _glob(text: str) -> str:
    if not text.strip():
        raise ConfigError(f"{quoted(text)} names no actor")
    return text.strip()


class Size(int):
    """Bytes; its text is what a setting takes: `256M`."""

    def __str__(self) -> str:
        for power, letter in ((30, "G"), (20, "M"), (10, "K")):
            if self and not self % (1 << power):
                return f"{self >> power}{letter}"
        return int.__repr__(self)


def _size(text: str) -> Size:
    """Bytes, or with a letter multiples of powers of 1024: "0", "1500000", "256M", "1.5G"."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([KMGkmg]?)(?:i?[Bb])?", text.strip())
    if not match:
        raise ConfigError(f"{quoted(text)} is not a size", hint="give it as 0, 500K, 256M or 2G")
    return Size(float(match[1]) * 1024 ** " KMG".index(match[2].upper() or " "))


def _region(text: str) -> str:
    # it becomes a label of a host name that signed requests go to
    if not re.fullmatch(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)", text.strip()):
        raise ConfigError(f"{quoted(text)} is not the name of a region", hint="give it as us-west-1")
    return text.strip()


_ENDPOINT = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?")


def _endpoint(text: str) -> str:
    """`scheme://host[:port]` in lower case, without a slash at the end.

    | text | is |
    |---|---|
    | http://localhost:9000, https://s3.example.com/, http://[::1]:9000 | taken |
    | s3.example.com, ftp://..., a path, a port over 65535 | refused and shown |
    | with a user, a password, a query, or characters that no endpoint has | refused, not shown: it may hold a secret |
    """
    url = text.strip()
    # shown only if it cannot hold a user name and password, and is either a URL or too short for a key
    harmless = re.fullmatch(r"[A-Za-z0-9:/._\[\]-]{1,100}", url) and ("://" in url or len(url) <= MOST_SHOWN)
    shown = repr(url) if harmless else "***"
    hint = "give it as http://localhost:9000; keys go into AWS_ACCESS_KEY and AWS_ACCESS_SECRET"
    if "@" in url:
        raise ConfigError(f"{shown} holds a user name or password", hint=hint)
    match = _ENDPOINT.fullmatch(url.lower()) if url.isascii() else None  # the Kelvin sign's lower case is our k
    if match is None or not _is_host(match["host"]) or not 1 <= int(match["port"] or 443) <= 65535:
        raise ConfigError(f"{shown} is not http:// or https://, a host, and perhaps a port, alone", hint=hint)
    return match[0].removesuffix("/")


def _is_host(host: str) -> bool:
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return False
        return True
    return len(host) <= 253 and all(0 < len(label) <= 63 for label in host.removesuffix(".").split("."))


# --- the table --------------------------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """One setting: flags, environment, .env, --check-config and .env.example are all made from it or held to it.

    `name` is the field of Config; `flag` None: there is none. `env_names` are looked for in this order, `in_dotenv` False:
    in the real environment only; `in_profile`: the AWS profile may set it too. `parse` takes one text and raises
    ConfigError; a repeatable setting is a tuple of what it gives, its texts separated by commas in the environment, one to
    each flag. `help` stands in --help and in .env.example. `unset` says for people what no value means.
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

    def from_flag(self, text: str) -> object:
        """For argparse's `type`: one text from the command line. Raises ArgumentTypeError, which is a usage error."""
        if self.repeatable and "," in text:
            advice = f"repeat the flag, as {self.flag} 'a*' {self.flag} 'b*'; for a comma in a name write ?"
            raise argparse.ArgumentTypeError(f"{quoted(text)} holds a comma: {advice}")
        try:
            return self.parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(f"{error} ({error.hint or 'see --help'})") from None

    def from_variable(self, text: str) -> object:
        """One text from the environment or .env. Raises ConfigError."""
        if not self.repeatable:
            return self.parse(text)
        items = tuple(self.parse(item) for item in text.split(",") if item.strip())
        if not items:  # "," must not become "no restriction"
            self.parse("")
        return items

    def text(self, value: object) -> str:
        """The value as it would stand in .env: the inverse of `from_variable`; "" is no value."""
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
    _setting("data_dir", Path("data"), _path, "DIR", "directory with actorsData.json and actors/"),
    _setting("workers_per_actor", 10, _whole_number(1, 256), "N", "images downloaded at once for one actor, 1 to 256"),
    _setting("concurrent_actors", 5, _whole_number(1, 256), "N", "actors synced at once, 1 to 256"),
    _setting(
        "processes",
        None,
        _whole_number(1, 64),
        "N",
        "processes that share the actors of a --once, 1 to 64 and at most one for each concurrent actor",
        unset="by cores, up to 4",
    ),
    _setting(
        "actors",
        (),
        _glob,
        "GLOB",
        "sync only the actors whose name matches; repeat the flag, or separate by commas in the environment",
        unset="all",
        repeatable=True,
    ),
    _setting(
        "exclude",
        (),
        _glob,
        "GLOB",
        "leave out the actors whose name matches; repeat the flag, or separate by commas in the environment",
        unset="none",
        repeatable=True,
    ),
    _setting(
        "endpoint_url",
        None,
        _endpoint,
        "URL",
        "S3-compatible store that every unsigned S3 URL goes to, such as http://localhost:9000",
        unset="AWS",
        aliases=("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        in_profile=True,
    ),
    _setting("anonymous", False, _boolean, "", "send requests unsigned, for public buckets: no credentials are looked for"),
    _setting(
        "request_payer",
        False,
        _boolean,
        "",
        "pay for requests to Requester Pays buckets: AWS bills the owner of the credentials",
    ),
    _setting(
        "log_format",
        "auto",
        _one_of("auto", "console", "json"),
        "FORMAT",
        "auto (console on a terminal, else json), console or json",
    ),
    _setting(
        "log_level",
        "info",
        _one_of("debug", "info", "warning", "error"),
        "LEVEL",
        "debug, info, warning or error",
    ),
    _setting(
        "report",
        None,
        _file_name,
        "FILE",
        "write a JSON report here after each run; - is standard output, logs then go to standard error",
        unset="none",
    ),
    _setting(
        "min_free",
        Size(256 * 1024 * 1024),
        _size,
        "SIZE",
        "free space on the disk below which no image is started, such as 500M or 2G; 0 is none",
    ),
    _setting("strict", False, _boolean, "", "a missing or pending manifest counts as failure: exit 1"),
    _setting("connect_timeout", 5.0, _seconds(), "SECONDS", "seconds to wait for a connection"),
    _setting("read_timeout", 30.0, _seconds(), "SECONDS", "seconds to wait for the next bytes"),
    _setting("image_timeout", 60.0, _seconds(), "SECONDS", "seconds without progress after which an image is tried again"),
    _setting("max_attempts", 5, _whole_number(1, 20), "N", "requests for one image before it has failed, 1 to 20"),
    _setting(
        "outage_seconds",
        120.0,
        _seconds(zero=True),
        "SECONDS",
        "seconds from its last answer that images wait for an endpoint that is out or refuses everything; 0: none",
    ),
    _setting("quiet_seconds", 0.3, _seconds(), "SECONDS", "seconds without a change after which a changed actor is synced"),
    _setting(
        "max_wait_seconds",
        3.0,
        _seconds(),
        "SECONDS",
        "seconds after its first change at which an actor is synced, quiet or not",
    ),
    _setting(
        "rescan_seconds",
        None,
        _seconds(),
        "SECONDS",
        "seconds between looks at all manifests, which find what events did not tell",
        unset="by size: 30 up to 1,000 actors",
    ),
    _setting("alive_seconds", 300.0, _seconds(), "SECONDS", "seconds between log lines that say that an idle daemon lives"),
    _setting(
        "grace_seconds",
        10.0,
        _seconds(zero=True),
        "SECONDS",
        "seconds that images in transfer get to end after a stop signal; 0 is none",
    ),
    _setting(
        "accept_opaque_etags",
        False,
        _boolean,
        "",
        "this store's ETags look like MD5 but are not: verify by length",
    ),
    _setting(
        "env_file",
        None,
        _path,
        "FILE",
        "read settings and keys from this file instead of .env in the working directory",
        unset="none",
        in_dotenv=False,
    ),
    _setting(
        "region",
        None,
        _region,
        "REGION",
        "region of buckets whose URL names none",
        unset="the profile's, else us-west-1",
        aliases=("AWS_REGION", "AWS_DEFAULT_REGION"),
    ),
    _setting(
        "ca_bundle",
        None,
        _file_name,
        "FILE",
        "file or directory of the certificates to trust, instead of the system's",
        unset="the system's",
        aliases=("AWS_CA_BUNDLE",),
        in_profile=True,
    ),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}


def setting(name: str) -> Setting:
    """The row of the table with this name. Raises KeyError."""
    return _BY_NAME[name]


def add_setting_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting that has one: dest is the field's name, the default None ("not given").

    Booleans can be taken back (`--no-anonymous`): the environment may have set them. A wrong value is a usage error.
    """
    for row in SETTINGS:
        if row.flag is None:
            continue
        words = f"{row.help} (default {row.shown(row.default)}; {', '.join(row.env_names)})"
        if isinstance(row.default, bool):
            parser.add_argument(row.flag, dest=row.name, action=argparse.BooleanOptionalAction, default=None, help=words)
        else:
            action = "append" if row.repeatable else "store"
            parser.add_argument(
                row.flag, dest=row.name, action=action, type=row.from_flag, default=None, metavar=row.metavar, help=words
            )


# --- the configuration ------------------------------------------------------------------------------------------------


class Config(NamedTuple):
    """The settings in force; the fields are the rows of SETTINGS, which says what each is and what it is by default.

    `env_file` is the file that was read, None where there was none. `dotenv` is what it held, secrets too: never shown.
    `dotenv_once`: it was a pipe, which is not read again.
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


_NO_PROFILE = AwsProfile()


def load_config(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    working_dir: Path,
    *,
    find_profile: Callable[[Mapping[str, str]], AwsProfile] = lambda _: _NO_PROFILE,
    previous: Config | None = None,
) -> Config:
    """Flag > environment > .env > AWS profile > default, for each setting by itself.

    `flags`: field -> value as argparse made it, None where not given; other keys are ignored. An empty value in the
    environment or .env is not set. Relative --env-file and `.env` are looked for in `working_dir`; other paths stay as given.
    `find_profile`: the AWS profile that an environment chooses. `previous`: what is in force, at a reload.
    Raises ConfigProblems with all that is wrong.
    """
    problems: list[ConfigError] = []
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    def resolve(row: Setting, dotenv: Mapping[str, str], file_name: str, profile: AwsProfile = _NO_PROFILE) -> None:
        try:
            values[row.name], sources[row.name] = _find(row, flags, environ, dotenv, file_name, profile)
        except ConfigError as error:
            problems.append(error)

    resolve(setting("env_file"), {}, "")
    file_name = ".env"
    named = values.get("env_file")
    if named is not None:
        file_name = str(named)
        values["env_file"] = working_dir / named
    elif "env_file" in values:  # else its own value is the problem: another file must not stand in
        values["env_file"] = default_env_file(working_dir)
    path, kept = values.get("env_file"), None
    if previous is not None and (path == previous.env_file or (path is None and previous.dotenv_once)):  # gone, a pipe may be
        path, kept = previous.env_file, EnvFile(previous.dotenv, once=previous.dotenv_once)
        values["env_file"] = path
    read = EnvFile()
    if path is not None:
        read = read_env_file(path, kept)
        problems += read.problems
    dotenv = read.entries
    profile = find_profile({**ambient_aws(dotenv), **environ})
    for row in SETTINGS:
        if row.name != "env_file":
            resolve(row, dotenv, file_name, profile)
    problems += _contradictions(values, sources)
    if problems:
        raise ConfigProblems(problems)
    return Config(**values, dotenv=MappingProxyType(dict(dotenv)), dotenv_once=read.once, sources=MappingProxyType(sources))


def _find(
    row: Setting,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    dotenv: Mapping[str, str],
    file_name: str,
    profile: AwsProfile,
) -> tuple[object, str]:
    """A setting's value and its source. Raises ConfigError."""
    given = flags.get(row.name)
    if given is not None:
        return tuple(given) if isinstance(given, list) else given, f"flag {row.flag}"
    for variables, where in ((environ, "the environment"), (dotenv if row.in_dotenv else {}, file_name)):
        for name in row.env_names:
            text = variables.get(name, "")
            if not text.strip() or (profile.ignores_endpoints and name.startswith("AWS_ENDPOINT_URL")):
                continue
            try:
                return row.from_variable(text), f"{name} in {where}"
            except ConfigError as error:
                raise ConfigError(f"{name}={error} (in {where})", hint=error.hint or SEE_EXAMPLE) from None
    of_profile = profile.values.get(row.name) if row.in_profile else None
    if isinstance(of_profile, ConfigError):
        raise of_profile
    if of_profile is None or (profile.ignores_endpoints and row.name == "endpoint_url"):
        return row.default, "default"
    try:
        return row.parse(of_profile.text), of_profile.source
    except ConfigError as error:
        raise ConfigError(f"{row.name} = {error} ({of_profile.source})", hint=error.hint or "correct that file") from None


def _contradictions(values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterable[ConfigError]:
    quiet, longest = values.get("quiet_seconds"), values.get("max_wait_seconds")
    if quiet is not None and longest is not None and quiet > longest:
        yield ConfigError(
            f"quiet_seconds {quiet:g} ({sources['quiet_seconds']}) is more than"
            f" max_wait_seconds {longest:g} ({sources['max_wait_seconds']})",
            hint="lower ACTORSYNC_QUIET_SECONDS, or raise ACTORSYNC_MAX_WAIT_SECONDS",
        )


# --- .env -------------------------------------------------------------------------------------------------------------


def reread_dotenv(config: Config, working_dir: Path) -> Mapping[str, str]:
    """What the file of `config` holds now, for renewed keys; a `.env` that came or went since the start is as good.

    What a pipe gave once stands. Raises ConfigProblems where it is unusable, so also where a file that was named is gone.
    """
    path = config.env_file if config.sources["env_file"] != "default" else default_env_file(working_dir)
    if path is None and not config.dotenv_once:
        return {}
    read = read_env_file(path or Path(), EnvFile(config.dotenv, once=config.dotenv_once))
    if read.problems:
        raise ConfigProblems(read.problems)
    return read.entries


def unknown_settings(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence, for a warning, for each ACTORSYNC_ name that nothing reads; values are not shown."""
    known = [name for row in SETTINGS for name in row.env_names]
    unread_in_dotenv = {name for row in SETTINGS if not row.in_dotenv for name in row.env_names}
    sentences = []
    for variables, where in ((environ, "the environment"), (dotenv, ".env")):
        for name in sorted(variables):
            # only what looks like a name is shown: of `ACTORSYNC_KEY:abc=` all before the = is the "name"
            if not re.fullmatch(r"ACTORSYNC_[A-Za-z0-9_]{0,60}", name, re.IGNORECASE):
                continue
            if variables is dotenv and name in unread_in_dotenv:
                sentences.append(f"{name} in {where} has no effect: it is read from the environment only")
            elif name not in known:
                import difflib  # only who mistypes needs it

                near = difflib.get_close_matches(name.upper(), known, n=1)
                advice = f"did you mean {near[0]}?" if near else SEE_EXAMPLE
                sentences.append(f"{name} in {where} is not a setting: {advice}")
    return tuple(sentences)


# --- credentials ------------------------------------------------------------------------------------------------------

_PAIRS = (("AWS_ACCESS_KEY", "AWS_ACCESS_SECRET"), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
_TOKEN = "AWS_SESSION_TOKEN"
_SYSTEMD_PAIR = ("aws_access_key", "aws_access_secret")
_SYSTEMD_TOKEN = "aws_session_token"


@dataclass(frozen=True, slots=True)
class _Pair:
    """Where a pair of keys could be; a text is "" where it is not set."""

    names: tuple[str, str]
    where: str
    keys: tuple[str, str] = field(repr=False)
    token_name: str
    token: str = field(repr=False)


def find_static_credentials(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> Credentials | None:
    """The first complete pair of keys, with the session token of the same source; None: there is none.

    1. `aws_access_key`, `aws_access_secret`, `aws_session_token` in systemd's $CREDENTIALS_DIRECTORY
    2. AWS_ACCESS_KEY and AWS_ACCESS_SECRET in the environment, 3. in .env
    4. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, 5. in .env

    Space around a value is dropped. Raises ConfigError where the pair holds what no key has: it would come out in the
    message of a refused HTTP header.
    """
    for pair in _pairs(environ, dotenv):
        if not all(pair.keys):
            continue
        for name, text in zip((*pair.names, pair.token_name), (*pair.keys, pair.token), strict=True):
            if not re.fullmatch(r"[!-~]*", text):
                raise ConfigError(
                    f"{name} in {pair.where} holds a space, a line break, or a character beyond ASCII, which no AWS key does",
                    hint="copy it again, in one line",
                )
        key, secret = pair.keys
        token = Secret(pair.token) if pair.token else None
        return Credentials(key, Secret(secret), token, f"{pair.names[0]} in {pair.where}")
    return None


def incomplete_credentials(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each source that has one half of a pair: names, never values."""
    sentences = []
    for pair in _pairs(environ, dotenv):
        if bool(pair.keys[0]) != bool(pair.keys[1]):
            there, missing = pair.names if pair.keys[0] else reversed(pair.names)
            sentences.append(f"{there} is set in {pair.where}, but {missing} is not")
    return tuple(sentences)


def _pairs(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> Iterable[_Pair]:
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if directory:
        key, secret, token = (_credential_file(Path(directory, name)) for name in (*_SYSTEMD_PAIR, _SYSTEMD_TOKEN))
        yield _Pair(_SYSTEMD_PAIR, "$CREDENTIALS_DIRECTORY", (key, secret), _SYSTEMD_TOKEN, token)
    for names in _PAIRS:
        for variables, where in ((environ, "the environment"), (dotenv, ".env")):
            key, secret, token = (variables.get(name, "").strip() for name in (*names, _TOKEN))
            yield _Pair(names, where, (key, secret), _TOKEN, token)


def _credential_file(path: Path) -> str:
    """A systemd credential; "" where it is not there or not ours to read, so that the next source is asked."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip()  # U+FFFD is refused above, as no key has it
    except OSError:
        return ""


_AMBIENT = re.compile(
    r"AWS_(DEFAULT_)?PROFILE|AWS_CONFIG_FILE|AWS_SHARED_CREDENTIALS_FILE"
    r"|AWS_ROLE_ARN|AWS_WEB_IDENTITY_TOKEN_FILE|AWS_ROLE_SESSION_NAME"
    r"|AWS_CONTAINER_[A-Z0-9_]+|AWS_EC2_METADATA_[A-Z0-9_]+"
    r"|AWS_IGNORE_CONFIGURED_ENDPOINT_URLS|AWS_CA_BUNDLE|REQUESTS_CA_BUNDLE|SSL_CERT_FILE"
    r"|HTTPS_PROXY|HTTP_PROXY|NO_PROXY|https_proxy|http_proxy|no_proxy"
)


def ambient_aws(dotenv: Mapping[str, str]) -> Mapping[str, str]:
    """The entries of .env that boto3's own chain, proxies and TLS look for in the process environment.

    Static keys, tokens, region and endpoint are not among them: they are passed on by name. What the environment has
    already goes before these.
    """
    return {name: text for name, text in dotenv.items() if text.strip() and _AMBIENT.fullmatch(name)}


# --- --check-config ---------------------------------------------------------------------------------------------------


def effective_settings(config: Config, environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, value, source) of every setting and of the credentials; no secret is among them."""
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
        return "none of our own", "; ".join((*halves, "left to boto3: profile, role, SSO"))
    # the last four of a short key would be most of it
    masked = "****" + (found.access_key[-4:] if len(found.access_key) >= 8 else "")
    return masked + (" with a session token" if found.session_token else ""), found.source


def settings_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Rows of effective_settings as aligned lines under a heading, without a newline at the end."""
    rows = [("setting", "value", "from"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}".rstrip() for name, value, source in rows)


# --- reload -----------------------------------------------------------------------------------------------------------

# What a running daemon can take over; for the rest it has to be started again.
RELOADABLE = frozenset(
    (
        "workers_per_actor",
        "concurrent_actors",
        "actors",
        "exclude",
        "strict",
        "image_timeout",
        "max_attempts",
        "outage_seconds",
        "accept_opaque_etags",
        "quiet_seconds",
        "max_wait_seconds",
        "rescan_seconds",
        "alive_seconds",
        "grace_seconds",
        "processes",  # which a daemon has not
        "env_file",  # a .env that came or went: which file is read at all is told by what cannot change
    )
)


class ReloadRefused(ConfigError):
    """The new configuration changes what cannot change without a restart."""

    code = "reload-refused"


class LiveConfig:
    """The configuration in force: whoever needs a setting that a reload may change reads it from here each time.

    Or follows it, where each time is too often.
    """

    __slots__ = ("_followers", "now")

    def __init__(self, config: Config) -> None:
        self.now = config
        self._followers: list[Callable[[], None]] = []

    def follow(self, follower: Callable[[], None]) -> None:
        """Have it called after each change."""
        self._followers.append(follower)

    def change(self, config: Config) -> None:
        self.now = config
        for follower in self._followers:
            follower()


def changed_settings(old: Config, new: Config) -> tuple[str, ...]:
    """The names of the settings that differ. Raises ReloadRefused where one of them cannot change in a running daemon."""
    changed = tuple(row.name for row in SETTINGS if getattr(old, row.name) != getattr(new, row.name))
    if fixed := [name for name in changed if name not in RELOADABLE]:
        raise ReloadRefused(
            f"{', '.join(fixed)} cannot change while the daemon runs; nothing was changed",
            hint="restart it to change that, or set it back and reload again",
        )
    return changed
