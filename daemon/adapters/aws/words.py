"""Error messages for botocore's exceptions, with a hint and without secrets."""

import json
import re
from typing import NamedTuple

from daemon.core.errors import CredentialsMissing

MOST_SHOWN = 300  # characters

_URL_SECRETS = re.compile(r"(?<=://)[^\s/@]*@|\?[^\s\"']*")  # a user and password; a query
_NAMED = re.compile(
    r"((?:secret|token|password|passwd|authorization|key)\w{0,40}[\"']?(?:\s{0,3}[=:]\s{0,3}|\s{1,3}))\S+", re.IGNORECASE
)
_MIXED = re.compile(r"(?P<arn>arn:[^\s\"',]+)|(?=[A-Za-z+=_.-]*[0-9])(?=[0-9+=_.-]*[A-Za-z])[A-Za-z0-9+=_.-]{16,}")
_LONG = re.compile(r"(?P<arn>arn:[^\s\"',]+)|[A-Za-z0-9+/=_-]{16,}")


class _Source(NamedTuple):
    name: str
    hint: str


_SOURCES = {
    "profile": _Source("the AWS profile", "correct ~/.aws/config and ~/.aws/credentials, or AWS_PROFILE"),
    "assume-role": _Source(
        "the AWS profile's role",
        "check role_arn and source_profile; `aws sts get-caller-identity --profile NAME` shows the same without actorsync",
    ),
    "assume-role-with-web-identity": _Source(
        "the web identity's role",
        "check AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN (on EKS: of the service account) and the role's trust policy",
    ),
    "sso": _Source("SSO", "run `aws sso login --profile NAME` as the user that actorsync runs as"),
    "login": _Source("the `aws login` session", "run `aws login` as the user that actorsync runs as"),
    "custom-process": _Source("credential_process", "correct the credential_process line of the AWS profile"),
    "container-role": _Source(
        "the container's credentials",
        "check AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE and the agent behind them",
    ),
    "iam-role": _Source("the instance's role", "check the instance profile and the metadata service of this machine"),
    "shared-credentials-file": _Source("~/.aws/credentials", "complete the profile there"),
    "config-file": _Source("~/.aws/config", "complete the profile there"),
}

# Messages of plain ValueErrors that hold nothing of what was read; others may, and are not shown.
_HARMLESS = ("Unsupported host ", "Auth token value is not", "No closing quotation", "No escaped character")


def explain(error: Exception, method: str) -> CredentialsMissing:
    """The error for a botocore exception. `method`: botocore's name of the credential source."""
    return unusable(method, _words(error), _hint(error))


def unusable(method: str, why: str, hint: str = "") -> CredentialsMissing:
    source = _SOURCES.get(method, _Source(f"boto3's source {method}", ""))
    return CredentialsMissing(f"{source.name}: {why}", hint=hint or source.hint or None)


def foreign(text: str) -> str:
    """One line of a text that botocore quotes, without what may be a secret.

    Stricter than `shown`: masks the values of names such as `token`, and every long word with letters and digits.
    """
    line = _NAMED.sub(r"\1***", text.strip().partition("\n")[0][:MOST_SHOWN])
    return shown(_MIXED.sub(lambda match: match[0] if match["arn"] else "***", line))


def shown(text: str) -> str:
    """The first line, without credentials in URLs and without long words that look random."""
    line = _URL_SECRETS.sub("***", text.strip().partition("\n")[0])
    line = _LONG.sub(lambda match: match[0] if match["arn"] or not _looks_random(match[0]) else "***", line)
    line = "".join(character if character.isprintable() else " " for character in line)
    return line if len(line) <= MOST_SHOWN else line[: MOST_SHOWN - 3] + "..."


def _looks_random(word: str) -> bool:
    """Whether a word looks like a key or token: digits among letters of both cases, or of upper case."""
    has = [any(test(character) for character in word) for test in (str.isdigit, str.isupper, str.islower)]
    return (all(has) and len(word) >= 20) or has == [True, True, False] or len(word) >= 64


def _words(error: Exception) -> str:
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        answer = error.response.get("Error", {})
        return shown(f"{error.operation_name} was refused with {answer.get('Code')}: {answer.get('Message')}")
    if isinstance(error, exceptions.ConfigParseError):
        return f"{error.kwargs.get('path')} cannot be parsed"
    if isinstance(error, exceptions.ParamValidationError):
        return "what is configured makes no valid request"  # botocore's text shows the values
    if isinstance(error, exceptions.CredentialRetrievalError):  # it may quote a server
        return foreign(str(error))
    if isinstance(error, exceptions.BotoCoreError):
        return shown(str(error))
    if isinstance(error, OSError):
        named = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return named + (error.strerror or type(error).__name__)
    if isinstance(error, KeyError) and re.fullmatch(r"\w{1,40}", str(error.args[0] if error.args else "")):
        return f"{error.args[0]} is missing"
    if isinstance(error, json.JSONDecodeError):
        return "its answer is no JSON"
    if isinstance(error, ValueError) and str(error).startswith(_HARMLESS):
        return shown(str(error))
    if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):
        return "AWS_ENDPOINT_URL_STS, AWS_ENDPOINT_URL or the profile's endpoint_url is no URL"
    if isinstance(error, RuntimeError) and "still expired" in str(error):
        return "the keys that it gave have expired"
    return f"its answer or its configuration is not understood (botocore raised {type(error).__name__})"


def _hint(error: Exception) -> str:
    """The hint for this kind of error; "" where the source's hint is better."""
    from botocore import exceptions

    if isinstance(error, exceptions.ConfigParseError):
        return "correct that file"
    if isinstance(error, exceptions.ProfileNotFound):
        return "set AWS_PROFILE to one of ~/.aws/config or ~/.aws/credentials, or set AWS_ACCESS_KEY and AWS_ACCESS_SECRET"
    if isinstance(error, exceptions.MissingDependencyException):
        return (
            "or let the AWS CLI log in: credential_process = aws configure export-credentials --profile NAME --format process"
        )
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return "check the network, HTTPS_PROXY, NO_PROXY, AWS_CA_BUNDLE, and endpoints in AWS_ENDPOINT_URL_STS or the profile"
    return ""
