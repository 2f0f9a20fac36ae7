"""Each source of credentials that botocore knows, right and wrong: right keys, or one error with a cause and a hint."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from daemon.adapters.aws import tool as tool_module
from daemon.adapters.aws.boto3_credentials import find_chain_credentials
from daemon.adapters.aws.words import foreign, shown
from daemon.core.errors import CredentialsMissing
from daemon.core.model import Credentials, Secret
from tests.support.aws import (
    KEY,
    ROLE,
    SECRET,
    TOKEN,
    Answering,
    AwsFiles,
    answering,
    container_answer,
    process_answer,
    role_answer,
    sts_error,
)

SECRETS = (SECRET, TOKEN, "hunter2", "sesame")
BY_ROLE = f"[default]\nrole_arn={ROLE}\nsource_profile=base\n"
BASE = "[profile base]\naws_access_key_id=AKIABASE\naws_secret_access_key=hunter2\n"
SSO = "[default]\nsso_session=x\nsso_account_id=1\nsso_role_name=r\n"


@dataclass
class World:
    """What a source can be made of."""

    files: AwsFiles
    server: Answering
    set: Callable[[str, str], None]

    def process(self, line: str) -> None:
        self.files.config(f"[default]\ncredential_process = {line}\n")

    def prints(self, answer: object) -> None:
        tool = self.files.tool().prints(answer)
        self.process(str(tool.path))

    def does(self, script: str) -> None:
        self.process(str(self.files.tool().does(script).path))

    def role(self, config: str, body: object = "", status: int = 200, **env: str) -> None:
        self.files.config(config)
        self.server.answers(body, status)
        self.set("AWS_ENDPOINT_URL_STS", self.server.url)
        for name, text in env.items():
            self.set(name, text)

    def web_identity(self, token: bytes | None, body: object = "", status: int = 200) -> None:
        path = self.files.folder / "token"
        if token is not None:
            path.write_bytes(token)
        self.role("", body, status, AWS_ROLE_ARN=ROLE, AWS_WEB_IDENTITY_TOKEN_FILE=str(path))

    def container(self, body: object = "", status: int = 200, uri: str = "", **env: str) -> None:
        self.server.answers(body, status)
        self.set("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri or f"{self.server.url}/creds?token=sesame")
        for name, text in env.items():
            self.set(name, text)

    def instance(self, body: object, status: int = 200) -> None:
        self.server.answers(body, status)
        self.set("AWS_EC2_METADATA_DISABLED", "false")
        self.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.server.url)


@pytest.fixture(scope="module")
def sts() -> Iterator[Answering]:
    with answering() as server:
        yield server


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sts: Answering) -> World:
    for name in list(os.environ):
        if name.startswith(("AWS_", "BOTO_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    files = AwsFiles(tmp_path)
    for name, text in files.environment.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0.01)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    sts.requests.clear()
    return World(files, sts, monkeypatch.setenv)


def make_fifo(world: World) -> None:
    os.mkfifo(world.files.folder / "token")


# (what is wrong, how it comes about, words of the error, words of its hint)
FAULTS: list[tuple[str, Callable[[World], object], str, str]] = [
    # --- credential_process
    (
        "no such tool",
        lambda w: w.process("/no/such/tool --password hunter2"),
        "/no/such/tool cannot be started: No such",
        "hand",
    ),
    ("tool without permission", lambda w: w.process("/etc/passwd"), "cannot be started: Permission denied", "hand"),
    ("tool that is no program", lambda w: (w.does(""), w.files.tool().path.write_bytes(b"\0")), "cannot be started", "hand"),
    ("assignment for a shell", lambda w: w.process("PASSWORD=hunter2 tool"), "(not shown) cannot be started", "hand"),
    ("all in one quote", lambda w: w.process("'tool --password hunter2'"), "tool cannot be started", "hand"),
    ("unbalanced quote", lambda w: w.process("/bin/echo 'hunter2"), "No closing quotation", "credential_process line"),
    ("empty command", lambda w: w.process(""), "credential_process is empty", "remove the line"),
    ("no JSON", lambda w: w.prints("hunter2, please log in"), "printed no JSON", "hand"),
    ("nothing", lambda w: w.does("true"), "printed no JSON", "hand"),
    ("not UTF-8", lambda w: w.does("printf '\\377'"), "printed no JSON", "hand"),
    ("deep JSON", lambda w: w.does("yes '[' | tr -d '\\n' | head -c 200000"), "printed no JSON", "hand"),
    ("a list", lambda w: w.prints([process_answer()]), "no object", "hand"),
    ("a text", lambda w: w.prints(f'"{SECRET}"'), "no object", "hand"),
    ("another version", lambda w: w.prints(process_answer(Version="2")), "Version is not 1", "hand"),
    ("no secret key", lambda w: w.prints(process_answer(SecretAccessKey=...)), "without SecretAccessKey", "hand"),
    ("null for a key", lambda w: w.prints(process_answer(AccessKeyId=None)), "without AccessKeyId", "hand"),
    ("number for a key", lambda w: w.prints(process_answer(AccessKeyId=5)), "without AccessKeyId", "hand"),
    ("number for a token", lambda w: w.prints(process_answer(SessionToken=5)), "SessionToken that is no text", "hand"),
    ("line break in a key", lambda w: w.prints(process_answer(SecretAccessKey="hunter2\n")), "no AWS key does", "profile"),
    ("expired", lambda w: w.prints(process_answer(-5)), "have expired", "hand"),
    ("bad Expiration", lambda w: w.prints(process_answer(Expiration="hunter2")), "Expiration that is no time", "hand"),
    ("Expiration without zone", lambda w: w.prints(process_answer(Expiration="2040-01-01T00:00:00")), "no time", "hand"),
    ("number for Expiration", lambda w: w.prints(process_answer(Expiration=4102444800)), "no time", "hand"),
    ("huge Expiration", lambda w: w.prints(process_answer(Expiration="9" * 40)), "no time", "hand"),
    ("endless output", lambda w: w.does("exec yes"), "printed more than", "hand"),
    ("endless complaint", lambda w: w.does("exec yes >&2"), "printed more than", "hand"),
    ("failure with reason", lambda w: w.does("echo log in first >&2; exit 3"), "status 3: log in first", "hand"),
    ("failure traced", lambda w: w.does(f"set -x; echo {SECRET} >/dev/null; exit 3"), "ended with status 3", "hand"),
    ("failure by a signal", lambda w: w.does("kill -9 $$"), "ended with status -9", "hand"),
    ("hanging tool", lambda w: w.does("exec sleep 60"), "did not end within 0.3 s", "hand"),
    ("output left open", lambda w: w.does("sleep 3 & exit 0"), "did not end within 0.3 s", "hand"),
    # --- web identity
    ("token file missing", lambda w: w.web_identity(None), "token: No such file or directory", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("token too short", lambda w: w.web_identity(b"ab"), "no valid request", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("token not UTF-8", lambda w: w.web_identity(b"\xff" * 20), "UnicodeDecodeError", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    ("token in a pipe", lambda w: (make_fifo(w), w.web_identity(None)), "no regular file", "holds the token"),
    (
        "web identity denied",
        lambda w: w.web_identity(b"t" * 20, sts_error("AccessDenied", "Not authorized"), 403),
        "AssumeRoleWithWebIdentity was refused with AccessDenied: Not authorized",
        "trust policy",
    ),
    ("no role ARN", lambda w: w.role("[default]\nweb_identity_token_file=/etc/passwd\n"), "no role ARN", "AWS_ROLE_ARN"),
    # --- assume role
    (
        "role denied",
        lambda w: w.role(
            BY_ROLE + BASE, sts_error("AccessDenied", f"User arn:aws:iam::1:user/Bob is not authorized: {ROLE}"), 403
        ),
        f"AssumeRole was refused with AccessDenied: User arn:aws:iam::1:user/Bob is not authorized: {ROLE}",
        "role_arn",
    ),
    (
        "STS shows what was signed",
        lambda w: w.role(BY_ROLE + BASE, sts_error("SignatureDoesNotMatch", f"No match.\nx-amz-security-token:{TOKEN}"), 403),
        "SignatureDoesNotMatch: No match.",
        "role_arn",
    ),
    ("STS answers HTML", lambda w: w.role(BY_ROLE + BASE, "<html>log in</html>"), "AssumeRoleResult is missing", "role_arn"),
    ("STS answers garbage", lambda w: w.role(BY_ROLE + BASE, "garbage", 500), "ResponseParserError", "role_arn"),
    (
        "STS unreachable",
        lambda w: (w.role(BY_ROLE + BASE), w.set("AWS_ENDPOINT_URL_STS", "http://user:hunter2@127.0.0.1:9/?token=sesame")),
        "Could not connect",
        "check the network",
    ),
    ("STS endpoint no URL", lambda w: w.role(BY_ROLE + BASE, AWS_ENDPOINT_URL_STS="hunter2"), "no URL", "role_arn"),
    (
        "STS endpoint malformed",
        lambda w: w.role(BY_ROLE + BASE, AWS_ENDPOINT_URL_STS="http://[hunter2"),
        "ValueError",
        "role_arn",
    ),
    (
        "MFA wanted",
        lambda w: w.role(f"{BY_ROLE}mfa_serial=arn:aws:iam::1:mfa/me\n{BASE}"),
        "wants an MFA code",
        "export-credentials",
    ),
    ("source profile missing", lambda w: w.role(BY_ROLE), '"base" referenced in the profile', "source_profile"),
    ("role of itself", lambda w: w.role(BY_ROLE.replace("base", "default")), "Infinite loop", "role_arn"),
    ("no source", lambda w: w.role(f"[default]\nrole_arn={ROLE}\n"), "source_profile or credential_source", "role_arn"),
    ("two sources", lambda w: w.role(f"{BY_ROLE}credential_source=Environment\n{BASE}"), "contains both", "role_arn"),
    ("no such source", lambda w: w.role(f"[default]\nrole_arn={ROLE}\ncredential_source=X\n"), '"X" referenced', "role_arn"),
    (
        "empty source",
        lambda w: w.role(f"[default]\nrole_arn={ROLE}\ncredential_source=Environment\n"),
        "No credentials",
        "role_arn",
    ),
    ("source's tool missing", lambda w: w.role(f"{BY_ROLE}[profile base]\ncredential_process=/no/tool\n"), "cannot be", "hand"),
    ("attempts no number", lambda w: w.role(BY_ROLE + BASE, AWS_MAX_ATTEMPTS="hunter2"), "ValueError", "role_arn"),
    # --- container
    ("agent unreachable", lambda w: w.container(uri="http://127.0.0.1:9/?token=sesame"), "Could not connect", "agent"),
    ("agent fails", lambda w: w.container(f'{{"message": "no", "Token": "{TOKEN}"}}', 500), "non 200 response 500", "agent"),
    ("agent says no JSON", lambda w: w.container("hunter2"), "Unable to parse JSON", "agent"),
    ("agent says a list", lambda w: w.container([container_answer()]), "TypeError", "agent"),
    ("agent says null", lambda w: w.container("null"), "TypeError", "agent"),
    ("agent not UTF-8", lambda w: w.container(b"\xff"), "UnicodeDecodeError", "agent"),
    ("agent leaves out the token", lambda w: w.container(container_answer(Token=...)), "Token is missing", "agent"),
    ("agent's time is none", lambda w: w.container(container_answer(Expiration="hunter2")), "ParserError", "agent"),
    ("agent's keys expired", lambda w: w.container(container_answer(-5)), "have expired", "agent"),
    ("agent's key a number", lambda w: w.container(container_answer(AccessKeyId=5)), "lack a key", "agent"),
    (
        "agent's token file missing",
        lambda w: w.container(AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE="/no/such"),
        "/no/such: No such file",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ),
    ("agent's token has lines", lambda w: w.container(AWS_CONTAINER_AUTHORIZATION_TOKEN="hunter2\nx"), "not a legal", "agent"),
    ("agent elsewhere", lambda w: w.container(uri="http://example.com/?token=sesame"), "Unsupported host", "agent"),
    ("agent's URI malformed", lambda w: w.container(uri="http://[hunter2"), "ValueError", "agent"),
    # --- instance, SSO, files
    ("metadata service says a list", lambda w: w.instance("null"), "TypeError", ""),
    ("metadata endpoint no URL", lambda w: (w.instance(""), w.set("AWS_EC2_METADATA_SERVICE_ENDPOINT", "x")), "endpoint", ""),
    (
        "SSO without login",
        lambda w: w.files.config(f"{SSO}[sso-session x]\nsso_start_url=https://x\nsso_region=y\n"),
        "SSO",
        "login",
    ),
    ("SSO session missing", lambda w: w.files.config(SSO), "does not exist", "sso"),
    ("aws login session", lambda w: w.files.config("[default]\nlogin_session=x\n"), "botocore[crt]", "export-credentials"),
    ("no such profile", lambda w: w.set("AWS_PROFILE", "nope"), "(nope) could not be found", "set AWS_PROFILE"),
    (
        "config without section",
        lambda w: w.files.config("aws_secret_access_key=hunter2\n"),
        "config cannot be parsed",
        "correct",
    ),
    ("config not UTF-8", lambda w: w.files.config(b"[default]\nx=\xff\n"), "config cannot be parsed", "correct"),
    ("config section twice", lambda w: w.files.config("[default]\n[default]\n"), "config cannot be parsed", "correct"),
    ("config block broken", lambda w: w.files.config("[default]\ns3 =\n  hunter2\n"), "config cannot be parsed", "correct"),
    ("half a pair", lambda w: w.files.credentials("[default]\naws_access_key_id=A\n"), "aws_secret_access_key", "complete"),
    (
        "empty pair",
        lambda w: w.files.credentials("[default]\naws_access_key_id=\naws_secret_access_key=\n"),
        "lack a key",
        "complete",
    ),
    ("number that is none", lambda w: w.files.config("[default]\nmetadata_service_timeout=hunter2\n"), "ValueError", "correct"),
]


@pytest.mark.parametrize(("arrange", "words", "hint"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS])
def test_a_failing_source_says_why_and_shows_no_secret(
    arrange: Callable[[World], object], words: str, hint: str, world: World, monkeypatch: pytest.MonkeyPatch, capfd
):
    monkeypatch.setattr(tool_module, "TOOL_SECONDS", 0.3 if "within" in words else 20.0)
    arrange(world)
    with pytest.raises(CredentialsMissing) as caught:
        find_chain_credentials()
    assert words in str(caught.value)
    assert hint in caught.value.hint
    told = f"{caught.value}{caught.value.hint}{caught.value.__cause__!r}{''.join(capfd.readouterr())}"
    assert [] == [secret for secret in SECRETS if secret in told]
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


SOURCES: list[tuple[str, Callable[[World], object], bool]] = [  # (what, how, whether its keys expire)
    ("credential_process", lambda w: w.prints(process_answer(3600)), True),
    ("credential_process without end", lambda w: w.prints(process_answer()), False),
    ("credential_process, little left", lambda w: w.prints(process_answer(30)), True),
    ("web identity", lambda w: w.web_identity(b"t" * 20, role_answer("AssumeRoleWithWebIdentity")), True),
    ("role", lambda w: w.role(BY_ROLE + BASE, role_answer()), True),
    ("container", lambda w: w.container(container_answer(30)), True),
    (
        "credentials file",
        lambda w: w.files.credentials(f"[default]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n"),
        False,
    ),
]


@pytest.mark.parametrize(("arrange", "expires"), [source[1:] for source in SOURCES], ids=[source[0] for source in SOURCES])
def test_a_source_gives_its_keys_and_when_they_expire(arrange: Callable[[World], object], expires: bool, world: World):
    arrange(world)
    found = find_chain_credentials()
    assert isinstance(found, Credentials)
    assert (KEY, Secret(SECRET)) == (found.access_key, found.secret_key)
    assert expires == (found.session_token == Secret(TOKEN))
    assert expires == (found.expires_at is not None and 0 < found.expires_at - time.time() < 3700)


def test_no_source_is_none(world: World):
    assert find_chain_credentials() is None


def test_one_lookup_asks_once_however_little_time_is_left(world: World):
    """botocore asks a second time where under 15 minutes are left."""
    tool = world.files.tool().prints(process_answer(30))
    world.process(str(tool.path))
    find_chain_credentials()
    assert 1 == tool.calls
    world.process("")
    world.files.config("")
    world.container(container_answer(30))
    find_chain_credentials()
    assert 1 == len(world.server.requests)


@pytest.mark.parametrize(
    ("region", "config", "expected"),
    [("eu-west-1", "", "eu-west-1"), (None, "", "us-west-1"), (None, "region=eu-west-2", "eu-west-2")],
    ids=["ours", "none anywhere", "the profile's"],
)
def test_a_role_is_assumed_in_a_region_that_is_known(region, config, expected, world: World):
    """botocore knows AWS_DEFAULT_REGION, and not AWS_REGION."""
    world.role(BY_ROLE + f"{config}\n" + BASE, role_answer())
    assert find_chain_credentials(region) is not None
    (request,) = world.server.requests
    assert expected == request.headers["Authorization"].split("/")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://user:hunter2@host/path?token=sesame now", "see https://***host/path*** now"),
        (f"key {KEY} and {SECRET}", "key *** and ***"),
        (f"{ROLE}-With-A-Long-Name-0123", f"{ROLE}-With-A-Long-Name-0123"),
        ("request 7f3f6b2e-1c3d-4e5f-8a9b-0c1d2e3f4a5b failed", "request 7f3f6b2e-1c3d-4e5f-8a9b-0c1d2e3f4a5b failed"),
        ("one\nhunter2", "one"),
        ("bell\x07", "bell "),
        ("x" * 64, "***"),
    ],
)
def test_what_may_be_a_secret_is_not_shown(text: str, expected: str):
    assert expected == shown(text)


@pytest.mark.parametrize(
    "text", ['"SecretAccessKey": "hunter2"', "password=hunter2", "auth_token: hunter2", "API_KEY = hunter2"]
)
def test_values_of_telling_names_are_not_shown_of_foreign_texts(text: str):
    assert "hunter2" not in foreign(text)
    assert foreign(text).endswith("***")
