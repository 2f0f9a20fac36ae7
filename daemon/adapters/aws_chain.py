"""botocore, and nothing else, lives here: its own chain of credentials (profile, role, SSO), and the profile's region."""

import os
import re
from collections.abc import Callable
from typing import Any

from daemon.core.errors import CredentialsMissing
from daemon.core.model import Credentials, Secret


def find_chain_credentials() -> Callable[[], Credentials] | None:
    """What gives the current credentials of the first source that has any, renewed by botocore when they run out.

    None: no source has. Finding them, and calling what is given, raises CredentialsMissing.
    """
    errors = _credential_errors()
    try:
        found = _new_session().get_credentials()
    except errors as error:
        raise CredentialsMissing(str(error)) from error
    return _Current(found, errors).credentials if found is not None else None


def find_profile_region() -> str | None:
    """The region of the AWS profile; None where it has none, or cannot be read: that is said when its keys are needed.

    botocore, 0.2 s of imports, is asked only where there is a file to read.
    """
    files = (("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
    if not any(os.path.exists(os.path.expanduser(os.environ.get(name) or usual)) for name, usual in files):
        return None
    try:
        region = _new_session().get_config_variable("region")
    except _credential_errors():
        return None
    return region if isinstance(region, str) and re.fullmatch(r"[a-z0-9-]{1,32}", region) else None


class _Current:
    """The same value for as long as the credentials are the same."""

    def __init__(self, found: Any, errors: tuple[type[Exception], ...]) -> None:
        self._found = found
        self._errors = errors
        self._frozen: Any = None
        self._credentials: Credentials | None = None

    def credentials(self) -> Credentials:
        try:
            frozen = self._found.get_frozen_credentials()  # where it is time, botocore asks for new ones first
        except self._errors as error:
            raise CredentialsMissing(str(error)) from error
        if self._credentials is None or frozen != self._frozen:
            if not all(re.fullmatch(r"[!-~]*", text or "") for text in frozen):
                raise CredentialsMissing(f"the credentials of {self._found.method} hold what no AWS key does")
            token = Secret(frozen.token) if frozen.token else None
            source = f"boto3's own chain ({self._found.method})"
            self._credentials = Credentials(frozen.access_key, Secret(frozen.secret_key), token, source)
            self._frozen = frozen
        return self._credentials


def _new_session() -> Any:
    from botocore.session import Session

    return Session()


def _credential_errors() -> tuple[type[Exception], ...]:
    import botocore.exceptions as errors

    return (
        errors.NoCredentialsError,
        errors.PartialCredentialsError,
        errors.CredentialRetrievalError,
        errors.ProfileNotFound,
        errors.ConfigParseError,
        errors.ConfigNotFound,
        errors.InvalidConfigError,
        errors.UnknownCredentialError,
        errors.TokenRetrievalError,
        errors.MetadataRetrievalError,
        errors.SSOError,
        errors.LoginError,
    )
