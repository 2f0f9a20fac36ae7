"""AWS credentials from botocore's chain: profile, role, SSO, container, instance."""

import os
import re
import stat
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

from daemon.adapters.aws.tool import Tool
from daemon.adapters.aws.words import explain, unusable
from daemon.core.errors import CredentialsMissing
from daemon.core.model import Credentials, Secret

CONNECT_SECONDS, READ_SECONDS = 5, 10  # of botocore's own requests, to STS for instance, which it makes up to 3 times

_TOKEN_FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CREDENTIAL_FILE")


def find_chain_credentials(region: str | None = None, *, default_region: str = "us-west-1") -> Credentials | None:
    """The credentials of the first source that has any, with the time at which they expire. None: no source has.

    Nothing is kept between two calls: each reads the files and runs the tools again. `region`: of the requests to STS;
    None: the profile's, else `default_region`. Raises CredentialsMissing for whatever botocore raises.
    """
    _prepare_botocore()
    method = "profile"
    try:
        session = _new_session(region, default_region)
        _require_regular_files(session)
        for provider in session.get_component("credential_provider").providers:
            method = provider.METHOD
            found = provider.load()
            if found is not None:
                method = found.method
                return _frozen(found)
    except CredentialsMissing:
        raise
    except Exception as error:  # botocore has no base class for what it raises: KeyError, ValueError, OSError, ...
        if _is_ours(error):
            raise
        raise explain(error, method) from None  # not chained: its message may hold a piece of a key
    return None


def _frozen(found: Any) -> Credentials:
    """botocore's credentials as a value. Deferred ones are asked for only now."""
    if hasattr(found, "refresh_needed"):
        # botocore calls the source again when under 15 minutes are left; when to do that is decided elsewhere
        found._advisory_refresh_timeout = found._mandatory_refresh_timeout = 0
    frozen = found.get_frozen_credentials()
    key, secret, token = frozen.access_key, frozen.secret_key, frozen.token or ""
    if not all(isinstance(text, str) for text in (key, secret, token)) or not (key and secret):
        raise unusable(found.method, "they lack a key, or hold something else in its place")
    if not all(re.fullmatch(r"[!-~]*", text) for text in (key, secret, token)):
        raise unusable(found.method, "they hold what no AWS key does: a space, a line break, a character beyond ASCII")
    expires = getattr(found, "_expiry_time", None)  # not there: used until S3 rejects them
    return Credentials(
        key,
        Secret(secret),
        Secret(token) if token else None,
        f"boto3's own chain ({found.method})",
        expires.timestamp() if expires is not None else None,
    )


def _new_session(region: str | None, default_region: str) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    session.set_default_client_config(Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS))
    if region is None and session.get_config_variable("region") is None:
        region = default_region
    if region is not None:  # botocore itself knows AWS_DEFAULT_REGION only
        session.set_config_variable("region", region)
    session.get_component("credential_provider").get_provider("assume-role")._prompter = _refuse_prompt
    return session


def _refuse_prompt(_: str) -> str:
    """A service has no terminal, and getpass would hold the hub."""
    raise CredentialsMissing(
        "the AWS profile's role wants an MFA code, and actorsync does not ask for one",
        hint='get a session first: eval "$(aws configure export-credentials --profile NAME --format env)", then start again',
    )


def _require_regular_files(session: Any) -> None:
    """botocore reads these on the hub, and a pipe without a writer would hold it."""
    for name, path in _token_files(session):
        try:
            mode = os.stat(os.path.expanduser(path)).st_mode
        except OSError:  # botocore says so
            continue
        if not stat.S_ISREG(mode):
            raise CredentialsMissing(f"{name} names {path}, which is no regular file", hint="name a file that holds the token")


def _token_files(session: Any) -> Iterator[tuple[str, str]]:
    for name in _TOKEN_FILES:
        if path := os.environ.get(name):
            yield name, path
    if path := session.get_scoped_config().get("web_identity_token_file"):
        yield "web_identity_token_file", path


def _is_ours(error: Exception) -> bool:
    """Whether the line that raised is one of this program: what botocore calls back is."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and str(traceback.tb_frame.f_globals.get("__name__")).startswith("daemon.")


@cache
def _prepare_botocore() -> None:
    """Import it, and have it run credential tools our way."""
    from botocore import credentials

    class ToolProvider(credentials.ProcessProvider):  # type: ignore[misc]
        def __init__(self, profile_name: str, load_config: Any) -> None:
            super().__init__(profile_name, load_config, popen=Tool)

    credentials.ProcessProvider = ToolProvider
    # dateutil warns on stderr of a zone that it does not know, by showing a piece of what a tool printed
    warnings.filterwarnings("ignore", module=r"botocore|dateutil|urllib3")
