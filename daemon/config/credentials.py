"""Static AWS keys from systemd, the environment and .env."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from daemon.core.errors import ConfigError
from daemon.core.model import Credentials, Secret

_PAIRS = (("AWS_ACCESS_KEY", "AWS_ACCESS_SECRET"), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
_TOKEN = "AWS_SESSION_TOKEN"
_SYSTEMD_PAIR = ("aws_access_key", "aws_access_secret")
_SYSTEMD_TOKEN = "aws_session_token"

# The variables of .env that boto3's credential chain, proxies and TLS read from the process environment.
_AMBIENT = re.compile(
    r"AWS_(DEFAULT_)?PROFILE|AWS_CONFIG_FILE|AWS_SHARED_CREDENTIALS_FILE"
    r"|AWS_ROLE_ARN|AWS_WEB_IDENTITY_TOKEN_FILE|AWS_ROLE_SESSION_NAME"
    r"|AWS_CONTAINER_[A-Z0-9_]+|AWS_EC2_METADATA_[A-Z0-9_]+"
    r"|AWS_IGNORE_CONFIGURED_ENDPOINT_URLS|AWS_CA_BUNDLE|REQUESTS_CA_BUNDLE|SSL_CERT_FILE"
    r"|HTTPS_PROXY|HTTP_PROXY|NO_PROXY|https_proxy|http_proxy|no_proxy"
)


@dataclass(frozen=True, slots=True)
class _Pair:
    """One source of a key pair; a text is "" where it is not set."""

    names: tuple[str, str]
    where: str
    keys: tuple[str, str] = field(repr=False)
    token_name: str
    token: str = field(repr=False)


def find_static_credentials(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> Credentials | None:
    """The first complete key pair, with the session token of the same source; None if there is none.

    1. `aws_access_key`, `aws_access_secret`, `aws_session_token` in systemd's $CREDENTIALS_DIRECTORY
    2. AWS_ACCESS_KEY and AWS_ACCESS_SECRET in the environment, 3. in .env
    4. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, 5. in .env

    Spaces around a value are dropped. Raises ConfigError where the pair holds a character that no key has: it would appear
    in the message of a refused HTTP header.
    """
    for pair in _pairs(environ, dotenv):
        if all(pair.keys):
            _require_key_characters(pair)
            key, secret = pair.keys
            token = Secret(pair.token) if pair.token else None
            return Credentials(key, Secret(secret), token, f"{pair.names[0]} in {pair.where}")
    return None


def _require_key_characters(pair: _Pair) -> None:
    for name, text in zip((*pair.names, pair.token_name), (*pair.keys, pair.token), strict=True):
        if not re.fullmatch(r"[!-~]*", text):
            raise ConfigError(
                f"{name} in {pair.where} holds a space, a line break, or a character beyond ASCII, which no AWS key does",
                hint="copy it again, in one line",
            )


def incomplete_credentials(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each source with one half of a pair: names, never values."""
    sentences = []
    for pair in _pairs(environ, dotenv):
        if bool(pair.keys[0]) != bool(pair.keys[1]):
            present, missing = pair.names if pair.keys[0] else reversed(pair.names)
            sentences.append(f"{present} is set in {pair.where}, but {missing} is not")
    return tuple(sentences)


def _pairs(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> Iterator[_Pair]:
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if directory:
        key, secret, token = (_credential_file(Path(directory, name)) for name in (*_SYSTEMD_PAIR, _SYSTEMD_TOKEN))
        yield _Pair(_SYSTEMD_PAIR, "$CREDENTIALS_DIRECTORY", (key, secret), _SYSTEMD_TOKEN, token)
    for names in _PAIRS:
        for variables, where in ((environ, "the environment"), (dotenv, ".env")):
            key, secret, token = (variables.get(name, "").strip() for name in (*names, _TOKEN))
            yield _Pair(names, where, (key, secret), _TOKEN, token)


def _credential_file(path: Path) -> str:
    """A systemd credential; "" where it is absent or unreadable, so that the next source is tried."""
    try:
        return path.read_bytes().decode("utf-8", "replace").strip()  # U+FFFD is refused above: no key has it
    except OSError:
        return ""


def ambient_aws(dotenv: Mapping[str, str]) -> Mapping[str, str]:
    """The entries of .env that boto3's chain, proxies and TLS read from the process environment.

    Static keys, tokens, region and endpoint are not among them: they are passed as arguments. A variable that the
    environment already has takes precedence.
    """
    return {name: text for name, text in dotenv.items() if text.strip() and _AMBIENT.fullmatch(name)}
