"""Where keys, the endpoint and settings come from, as users run it: tools, AWS files, pipes."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.account import ACCESS_KEY, SECRET_KEY
from tests.support.aws import (
    ROLE,
    SECRET,
    TOKEN,
    Answering,
    AwsFiles,
    Tool,
    answering,
    process_answer,
    role_answer,
    sts_error,
)
from tests.support.daemons import QUICK
from tests.support.fault_server import FaultServer
from tests.support.product import Finished, Product
from tests.support.trees import BUCKET, ActorTree
from tests.support.waiting import wait_until

ACTORS = 4
IMAGES = 40
ONE_PROCESS = ("--once", "--processes", "1", "--log-format", "json")
BY_ROLE = f"[default]\nrole_arn={ROLE}\nsource_profile=base\n[profile base]\naws_access_key_id=A\naws_secret_access_key=B\n"


@pytest.fixture
def tree(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    for number in range(ACTORS):
        actor_tree.actor(f"{number:04}_actor", images=IMAGES // ACTORS)
    actor_tree.upload_to(fault_server)
    return actor_tree


@pytest.fixture
def files(tmp_path: Path) -> AwsFiles:
    folder = tmp_path / "home"
    folder.mkdir()
    return AwsFiles(folder)


@pytest.fixture
def tool(files: AwsFiles) -> Tool:
    """The credential_process of the default profile."""
    tool = files.tool()
    files.config(f"[default]\ncredential_process = {tool.path}\n")
    return tool


@pytest.fixture
def sts() -> Iterator[Answering]:
    with answering() as server:
        yield server


def env(files: AwsFiles, server: FaultServer | None = None, **more: str) -> dict[str, str | None]:
    endpoint = {"AWS_ENDPOINT_URL_S3": server.endpoint_url} if server is not None else {}
    return {**files.environment, **endpoint, **more}


def assert_not_configured(finished: Finished, words: str) -> None:
    assert 78 == finished.returncode, finished.stderr[-2000:]
    assert 1 == finished.stderr.count("AWS credentials not configured: ")
    assert words in finished.stderr
    (failed,) = finished.events("identity.failed", code="credentials-not-configured")
    assert words in failed["error"]
    assert failed["hint"]
    told = finished.stdout + finished.stderr
    assert "Traceback" not in told
    assert [] == [secret for secret in (SECRET, TOKEN, "hunter2") if secret in told]


# --- a source that fails ----------------------------------------------------------------------------------------------


def test_a_failing_tool_is_called_once_for_all_images(tree, product, fault_server, files, tool):
    tool.does("sleep 0.3; echo 'run company-login first' >&2; exit 1")
    finished = product.run(ONE_PROCESS, tree.root, env=env(files, fault_server))
    assert_not_configured(finished, "ended with status 1: run company-login first")
    assert 1 == tool.calls
    assert () == fault_server.requests


def test_a_failing_tool_is_said_once_by_all_processes(tree, product, fault_server, files, tool):
    tool.does(f"echo {SECRET} >&2; exit 1")
    finished = product.run(["--once", "--processes", "3", "--log-format", "json"], tree.root, env=env(files, fault_server))
    assert_not_configured(finished, "ended with status 1")
    assert 1 <= tool.calls <= 3


@pytest.mark.parametrize(
    ("config", "more", "words"),
    [
        ("[default]\ncredential_process = /no/such/tool --password hunter2\n", {}, "/no/such/tool cannot be started"),
        ("", {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/token"}, "/no/such/token: No such file"),
        (BY_ROLE, {"AWS_REGION": "us-west-1"}, "AssumeRole was refused with AccessDenied: not authorized"),
    ],
    ids=["tool", "web identity", "role"],
)
def test_a_broken_source_is_a_matter_of_configuration(tree, product, fault_server, files, sts, config, more, words):
    files.config(config)
    sts.answers(sts_error("AccessDenied", "not authorized"), 403)
    finished = product.run(ONE_PROCESS, tree.root, env=env(files, fault_server, AWS_ENDPOINT_URL_STS=sts.url, **more))
    assert_not_configured(finished, words)


def test_a_prompt_for_a_code_does_not_wait_on_a_terminal(tree, product, fault_server, files):
    files.config(BY_ROLE.replace("[profile", "mfa_serial=arn:aws:iam::1:mfa/me\n[profile"))
    finished = product.run(["--once"], tree.root, env=env(files, fault_server), terminal=True, timeout_seconds=20)
    assert 78 == finished.returncode
    assert "Enter MFA code" not in finished.stdout + finished.stderr


def test_a_role_needs_no_more_than_a_region(tree, product, fault_server, files, sts):
    files.config(BY_ROLE)
    sts.answers(role_answer())
    more = {"AWS_REGION": "eu-central-1", "AWS_ENDPOINT_URL_STS": sts.url}
    finished = product.run(ONE_PROCESS, tree.root, env=env(files, fault_server, **more))
    assert 0 == finished.returncode, finished.stderr
    (request,) = sts.requests
    assert "/eu-central-1/sts/" in request.headers["Authorization"]
    tree.assert_matches()


def test_an_empty_aws_profile_is_not_set(tree, product, fault_server, files, tool):
    tool.prints(process_answer())
    finished = product.run(ONE_PROCESS, tree.root, env=env(files, fault_server, AWS_PROFILE=""))
    assert 0 == finished.returncode, finished.stderr


# --- how often a source is asked --------------------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [1, 3])
def test_keys_with_little_time_left_cost_one_call(tree, product, fault_server, files, tool, processes):
    tool.prints(process_answer(120), after_seconds=0.2)
    finished = product.run(["--once", "--processes", str(processes)], tree.root, env=env(files, fault_server))
    assert 0 == finished.returncode, finished.stderr
    assert 1 <= tool.calls <= processes
    assert {TOKEN} == {request.headers["x-amz-security-token"] for request in fault_server.requests}
    tree.assert_matches()


def test_a_slow_tool_holds_only_those_who_need_its_keys(tree, product, fault_server, files, tool):
    tool.prints(process_answer(), after_seconds=30)
    url = f"{fault_server.endpoint_url}/{BUCKET}/training/0000_actor/0000_0.png?X-Amz-Signature=0&X-Amz-Credential=x"
    tree.actor("9999_presigned", urls=[url])
    with product.start([*ONE_PROCESS, "--log-level", "debug"], tree.root, env=env(files, fault_server)) as running:
        running.wait_for("image.committed", image="0000_0.png", actor="9999_presigned")
        assert 1 == tool.calls
        running.kill()


# --- a daemon ---------------------------------------------------------------------------------------------------------


def test_a_source_that_fails_in_mid_life_is_waited_for(tree, product, fault_server, files, tool):
    expired = time.time() + 3
    tool.prints(process_answer(3))
    with product.start([*QUICK, "--rescan-seconds", "1"], tree.root, env=env(files, fault_server)) as running:
        running.wait_for("run.completed", status="complete")
        tool.path.unlink()
        wait_until(lambda: time.time() > expired)
        tree.actor("0000_actor", images=IMAGES)
        tree.upload_to(fault_server)
        failed = running.wait_for("identity.failed", code="credentials-not-configured")
        assert f"{tool.path} cannot be started: No such file" in failed["error"]
        tool.prints(process_answer(3600))
        running.wait_for("identity.recovered")
        wait_until(lambda: all(path.exists() for path in tree.expected))
        assert "Traceback" not in running.stderr
        running.stop()
    tree.assert_matches()


# --- .env from a pipe -------------------------------------------------------------------------------------------------


def keys_as_env_file(server: FaultServer) -> str:
    return f"AWS_ACCESS_KEY={ACCESS_KEY}\nAWS_ACCESS_SECRET={SECRET_KEY}\nAWS_ENDPOINT_URL_S3={server.endpoint_url}\n"


def test_keys_from_a_process_substitution_are_used(tree, product, fault_server):
    for mode in ("--check-config", "--once"):
        script = f"exec {shlex.quote(sys.executable)} -m daemon {mode} --env-file <(printf '{keys_as_env_file(fault_server)}')"
        ended = subprocess.run(
            ["bash", "-c", script], cwd=tree.root, env=product.environment(), capture_output=True, text=True, timeout=30
        )
        assert 0 == ended.returncode, ended.stderr
    tree.assert_matches()


def test_a_pipe_is_read_once_and_kept_at_a_reload(tree, product, fault_server):
    pipe = tree.root / "env"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_text(keys_as_env_file(fault_server)))
    writer.start()
    with product.start([*QUICK, "--env-file", "env"], tree.root) as running:
        running.wait_for("run.completed", status="complete")
        writer.join()
        pipe.unlink()
        tree.actor("0000_actor", images=IMAGES)
        tree.upload_to(fault_server)
        assert 0 == product.run(["--reload"], tree.root).returncode
        running.wait_for("reload.completed", changed=[])
        wait_until(lambda: all(path.exists() for path in tree.expected))
        running.stop()
    tree.assert_matches()


def test_a_stop_signal_ends_a_start_that_waits_for_a_pipe(tree, product):
    os.mkfifo(tree.root / ".env")
    with product.start(["--once"], tree.root) as running:
        writer = os.open(tree.root / ".env", os.O_WRONLY)  # returns once it is read
        running.send(signal.SIGTERM)
        assert -signal.SIGTERM == running.wait()
        os.close(writer)


# --- the profile's endpoint -------------------------------------------------------------------------------------------


@pytest.fixture
def profile(files: AwsFiles, fault_server: FaultServer) -> dict[str, str | None]:
    files.config(
        f"[profile minio]\nservices = local\nendpoint_url = http://127.0.0.1:9\n"
        f"[services local]\ns3 =\n  endpoint_url = {fault_server.endpoint_url}\n"
    )
    files.credentials(f"[minio]\naws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n")
    return env(files, AWS_PROFILE="minio")


def test_the_profiles_endpoint_gets_its_keys(tree, product, fault_server, profile):
    finished = product.run(["--once", "--processes", "3"], tree.root, env=profile)
    assert 0 == finished.returncode, finished.stderr
    assert IMAGES == len(fault_server.requests)
    tree.assert_matches()


def test_the_profile_may_be_named_in_dotenv(tree, product, profile):
    (tree.root / ".env").write_text(f"AWS_PROFILE=minio\nAWS_CONFIG_FILE={profile.pop('AWS_CONFIG_FILE')}\n")
    finished = product.run(["--once"], tree.root, env={**profile, "AWS_PROFILE": None})
    assert 0 == finished.returncode, finished.stderr


def test_the_profiles_endpoint_is_shown_with_its_source(tree, product, fault_server, profile):
    finished = product.run(["--check-config"], tree.root, env=profile)
    (row,) = [line for line in finished.stdout.splitlines() if line.startswith("endpoint_url")]
    assert fault_server.endpoint_url in row
    assert row.endswith(f"services local of profile minio in {profile['AWS_CONFIG_FILE']}")


def test_urls_of_the_profiles_endpoint_are_planned(tree, product, fault_server, profile):
    tree.actor("9999_own", urls=[f"{fault_server.endpoint_url}/{BUCKET}/training/0000_actor/0000_0.png"])
    finished = product.run(["--dry-run"], tree.root, env=profile)
    assert "9999_own: 1 to download" in finished.stdout
    assert "url-not-s3" not in finished.stdout


def test_a_reload_keeps_the_profiles_endpoint(tree, product, fault_server, profile):
    with product.start(QUICK, tree.root, env=profile) as running:
        running.wait_for("run.completed", status="complete")
        assert 0 == product.run(["--reload"], tree.root).returncode
        running.wait_for("reload.completed", changed=[])
        running.stop()


def test_an_unusable_endpoint_of_a_profile_is_named(tree, product, files):
    files.config("[profile minio]\nendpoint_url = http://user:hunter2@store:9000/path\n")
    finished = product.run(["--once"], tree.root, env=env(files, AWS_PROFILE="minio"))
    assert 78 == finished.returncode
    assert f"(profile minio in {files.folder}/config)" in finished.stderr
    assert "hunter2" not in finished.stderr


def test_the_profiles_ca_bundle_is_trusted(actor_tree, product: Product, files, tls_certificate):
    with FaultServer(tls=tls_certificate.server_context()) as server:
        actor_tree.actor("0000_actor", images=2)
        actor_tree.upload_to(server)
        keys = f"aws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
        files.config(f"[default]\nca_bundle = {tls_certificate.file}\nendpoint_url = {server.endpoint_url}\n{keys}")
        finished = product.run(ONE_PROCESS, actor_tree.root, env=env(files))
    assert 0 == finished.returncode, finished.stdout
    actor_tree.assert_matches()
