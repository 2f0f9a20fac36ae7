"""AWS credentials from boto3's chain: profile, role, SSO, container, instance."""

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

CONNECT_SECONDS, READ_SECONDS = 5, 10  # of each request to STS and the like; botocore makes up to 3 attempts

_TOKEN_FILES = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CREDENTIAL_FILE")


class _Chain:
    """botocore's credential chain. It remembers the source that it asked last, which an error then names."""

    method = "profile"  # the session reads the profile before any source is asked

    def __init__(self, providers: list[Any]) -> None:
        self._providers = providers

    def load_credentials(self) -> Any:
        """The credentials of the first source that has any, else None: as botocore's CredentialResolver."""
        for provider in self._providers:
            self.method = provider.METHOD
            found = provider.load()
            if found is not None:
                self.method = found.method
                return found
        return None


def find_chain_credentials(region: str | None = None, *, default_region: str = "us-west-1") -> Credentials | None:
    """The credentials of the first source that has any, with their expiry time; None: no source has.

    Nothing is cached: each call reads the files and runs the tools again. Requests to STS go to `region`, else the profile's
    region, else `default_region`. Raises CredentialsMissing for anything that botocore raises.
    """
    _prepare_botocore()
    chain: _Chain | None = None
    try:
        session = _new_botocore_session()
        chain = _add_chain(session)
        found = _new_session(session, region, default_region).get_credentials()
        return None if found is None else _freeze(found)
    except CredentialsMissing:
        raise
    except Exception as error:  # botocore's exceptions have no common class: KeyError, ValueError, OSError, ...
        if _is_ours(error):
            raise
        # not chained: the message may hold a piece of a key
        raise explain(error, chain.method if chain else _Chain.method) from None


def _new_botocore_session() -> Any:
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    session.set_default_client_config(Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS))
    return session


def _new_session(session: Any, region: str | None, default_region: str) -> Any:
    """The boto3.Session around botocore's `session`. botocore itself does not read AWS_REGION."""
    from boto3.session import Session

    if region is None and session.get_config_variable("region") is None:
        region = default_region
    return Session(botocore_session=session, region_name=region)


def _add_chain(session: Any) -> _Chain:
    _require_regular_files(session)
    resolver = session.get_component("credential_provider")
    resolver.get_provider("assume-role")._prompter = _refuse_prompt
    chain = _Chain(resolver.providers)
    session.register_component("credential_provider", chain)
    return chain


def _freeze(found: Any) -> Credentials:
    """botocore's credentials as a value. Deferred ones are fetched now."""
    if hasattr(found, "refresh_needed"):
        # botocore would fetch them twice when under 15 minutes are left; http/identity.py decides when to refresh
        found._advisory_refresh_timeout = found._mandatory_refresh_timeout = 0
    frozen = found.get_frozen_credentials()
    key, secret, token = frozen.access_key, frozen.secret_key, frozen.token or ""
    if not all(isinstance(text, str) for text in (key, secret, token)) or not (key and secret):
        raise unusable(found.method, "they lack a key, or hold something else in its place")
    if not all(re.fullmatch(r"[!-~]*", text) for text in (key, secret, token)):
        raise unusable(found.method, "they hold what no AWS key does: a space, a line break, a character beyond ASCII")
    expires = getattr(found, "_expiry_time", None)  # absent: used until S3 rejects them
    return Credentials(
        key,
        Secret(secret),
        Secret(token) if token else None,
        f"boto3's own chain ({found.method})",
        expires.timestamp() if expires is not None else None,
    )


def _refuse_prompt(_: str) -> str:
    """Stand-in for getpass, which would block the event loop: a service has no terminal."""
    raise CredentialsMissing(
        "the AWS profile's role wants an MFA code, and actorsync does not ask for one",
        hint='get a session first: eval "$(aws configure export-credentials --profile NAME --format env)", then start again',
    )


def _require_regular_files(session: Any) -> None:
    """Raises CredentialsMissing for a token file that is a pipe: reading it would block the event loop."""
    for name, path in _token_files(session):
        try:
            mode = os.stat(os.path.expanduser(path)).st_mode
        except OSError:  # botocore reports it
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
    """Whether code of this program raised `error`: botocore calls some of it."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback is not None and str(traceback.tb_frame.f_globals.get("__name__")).startswith("daemon.")


@cache
def _prepare_botocore() -> None:
    """Import botocore, once, and replace the subprocess.Popen of its ProcessProvider by Tool."""
    from botocore import credentials

    class ToolProvider(credentials.ProcessProvider):  # type: ignore[misc]
        def __init__(self, profile_name: str, load_config: Any) -> None:
            super().__init__(profile_name, load_config, popen=Tool)

    credentials.ProcessProvider = ToolProvider
    # dateutil's warning about an unknown zone shows a piece of what a tool printed
    warnings.filterwarnings("ignore", module=r"boto3|botocore|dateutil|urllib3")
