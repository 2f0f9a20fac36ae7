"""Settings from the AWS profile in force: endpoint, CA bundle, region.

Endpoint and CA bundle are needed at every start, and are read here as botocore 1.44.5 reads them: importing boto3 would add
0.25 s of CPU to a start of 0.4 s. boto3 itself is asked for the region, which is needed only where neither a URL nor the
settings have one.
"""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from daemon.core.errors import ConfigError
from daemon.core.model import AwsProfile, ProfileValue

if TYPE_CHECKING:
    from configparser import RawConfigParser

_FILES = (("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
_NAMES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")  # in botocore's order
_WORDS = re.compile(rb"endpoint_url|ca_bundle", re.IGNORECASE)  # a file without any is not parsed

_Section = dict[str, Any]  # a text, or for an indented block a dict of texts, by setting


class _File(NamedTuple):
    shown: str
    content: bytes
    sections: dict[str, _Section]


def find_profile(environ: Mapping[str, str]) -> AwsProfile:
    """The profile that `environ` selects: each value with the file that sets it.

    | value | from, the first that has it |
    |---|---|
    | endpoint_url | `s3` of the section that the profile's `services` names; the profile |
    | ca_bundle | the profile |

    A profile in both files is one; ~/.aws/credentials takes precedence. A file that cannot be parsed gives a ConfigError as
    the value of each setting that it mentions.
    """
    ignored = environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
    files = [_read(environ.get(name, usual)) for name, usual in _FILES]
    if not any(file is not None and _WORDS.search(file.content) for file in files):
        return AwsProfile({}, _is_true(ignored))
    broken: dict[str, ProfileValue | ConfigError] = {}
    for file in files:
        if file is not None:
            broken |= _parse(file)
    config, credentials = files
    name = next((environ[variable] for variable in _NAMES if environ.get(variable, "").strip()), "default")
    profile: dict[str, tuple[Any, str]] = {}
    for file, sections in ((config, _profiles(config, "profile")), (credentials, credentials.sections if credentials else {})):
        if file is not None:
            profile |= {key: (value, file.shown) for key, value in sections.get(name, {}).items()}
    values: dict[str, ProfileValue | ConfigError] = {
        key: ProfileValue(value, f"profile {name} in {shown}")
        for key, (value, shown) in profile.items()
        if key in ("endpoint_url", "ca_bundle") and isinstance(value, str) and value
    }
    if "services" in profile:
        of_s3 = _endpoint_of_s3(name, *profile["services"], _profiles(config, "services"))
        values |= {"endpoint_url": of_s3} if of_s3 is not None else {}
    if ignored is None:
        ignored, _ = profile.get("ignore_configured_endpoint_urls", (None, ""))
    return AwsProfile(broken | values, _is_true(ignored))


def find_profile_region() -> str | None:
    """The profile's region, by boto3.

    None also for a broken profile: the lookup of its keys reports that.
    """
    files = (_read(os.environ.get(name, usual)) for name, usual in _FILES)
    if not any(file is not None and b"region" in file.content.lower() for file in files):
        return None  # importing boto3 to learn this would cost 0.25 s
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError

    try:
        region = Session().region_name
    except BotoCoreError:
        return None
    return region if region is not None and re.fullmatch(r"[a-z0-9-]{1,32}", region) else None


def _endpoint_of_s3(name: str, section: Any, shown: str, services: Mapping[str, _Section]) -> ProfileValue | ConfigError | None:
    where = f"profile {name} in {shown}"
    found = services.get(section) if isinstance(section, str) else None
    of_s3 = found.get("s3", {}) if found else None
    if not isinstance(of_s3, dict):  # botocore then refuses every request
        hint = "below `[services NAME]` write `s3 =` and, indented, `endpoint_url = URL`; or remove `services` from the profile"
        return ConfigError(f"{where} names the services section {str(section)[:60]!r}, which has no settings of s3", hint=hint)
    endpoint = of_s3.get("endpoint_url")
    return ProfileValue(endpoint, f"services {section} of {where}") if endpoint else None


def _is_true(text: object) -> bool:
    return isinstance(text, str) and text.lower() == "true"


def _read(path: str) -> _File | None:
    real = os.path.expanduser(os.path.expandvars(path))
    if not os.path.isfile(real):
        return None
    try:
        with open(real, "rb") as file:
            return _File(path, file.read(), {})
    except OSError:  # as botocore: its configparser ignores what it cannot open
        return None


def _parse(file: _File) -> dict[str, ConfigError]:
    """Fill in the sections. Returns an error for each setting that an unparsable file mentions."""
    import configparser

    parser: RawConfigParser = configparser.RawConfigParser()
    try:
        parser.read_string(file.content.decode())
        for section in parser.sections():
            file.sections[section] = {option: _value(parser.get(section, option)) for option in parser.options(section)}
    except (configparser.Error, ValueError):  # not chained: the message shows lines, which may hold keys
        file.sections.clear()
        words = {word.decode().lower() for word in _WORDS.findall(file.content)}
        error = ConfigError(f"{file.shown} cannot be parsed, and sets {' and '.join(sorted(words))}", hint="correct that file")
        return dict.fromkeys(words, error)
    return {}


def _value(text: str) -> str | dict[str, str]:
    """The text of a setting, or the settings of an indented block."""
    if not text.startswith("\n"):
        return text
    pairs = (line.split("=", 1) for line in text.splitlines() if line.strip())
    return {key.strip(): value.strip() for key, value in pairs}


def _profiles(file: _File | None, kind: str) -> dict[str, _Section]:
    """The sections `[kind NAME]` by name. `[default]` is a profile too."""
    import shlex

    found: dict[str, _Section] = {}
    for section, values in file.sections.items() if file is not None else ():
        if section.startswith(kind):
            try:
                parts = shlex.split(section)
            except ValueError:
                continue
            if len(parts) == 2:
                found[parts[1]] = values
        elif section == "default" and kind == "profile":
            found["default"] = values
    return found
