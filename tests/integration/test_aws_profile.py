"""The AWS profile as we read it, held to what botocore makes of the same files."""

import os
from pathlib import Path

import pytest

from daemon.adapters.aws.profile import find_profile, find_profile_region
from daemon.config import load_config
from daemon.core.errors import ConfigError
from daemon.core.model import AwsProfile
from tests.support.aws import AwsFiles

SERVICES = "[services local]\ns3 =\n  endpoint_url = http://s3-section:1\n  other = x\nsts =\n  endpoint_url = http://sts:1\n"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AwsFiles:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    files = AwsFiles(tmp_path)
    for name, text in files.environment.items():
        monkeypatch.setenv(name, text)
    return files


def of_botocore() -> tuple[str | None, str | bool | None]:
    """The endpoint of an S3 client, None where it is AWS's own; and the bundle that it trusts."""
    from botocore.session import Session

    session = Session()
    client = session.create_client("s3", region_name="us-west-1", aws_access_key_id="A", aws_secret_access_key="S")
    endpoint = client.meta.endpoint_url
    return None if "amazonaws" in endpoint else endpoint, session.get_config_variable("ca_bundle")


# (config, credentials, environment)
AGREED = {
    "nothing": ("", "", {}),
    "profile": ("[default]\nendpoint_url = http://profile:1\n", "", {}),
    "other profile": ("[default]\nendpoint_url=http://a:1\n[profile b]\nregion=x\n", "", {"AWS_PROFILE": "b"}),
    "named": ("[profile b]\nendpoint_url=http://b:1\n", "", {"AWS_PROFILE": "b"}),
    "quoted name": ('[profile "my store"]\nendpoint_url=http://b:1\n', "", {"AWS_PROFILE": "my store"}),
    "default by its long name": ("[profile default]\nendpoint_url=http://b:1\n", "", {}),
    "older variable first": (
        "[profile a]\nendpoint_url=http://a:1\n[profile b]\nendpoint_url=http://b:1\n",
        "",
        {"AWS_PROFILE": "a", "AWS_DEFAULT_PROFILE": "b"},
    ),
    "services": (f"[default]\nservices=local\n{SERVICES}", "", {}),
    "services before profile": (f"[default]\nservices=local\nendpoint_url=http://profile:1\n{SERVICES}", "", {}),
    "services without s3": (
        "[default]\nservices=l\nendpoint_url=http://p:1\n[services l]\nsts =\n  endpoint_url=http://s:1\n",
        "",
        {},
    ),
    "services unused": (f"[default]\nregion=x\n{SERVICES}", "", {}),
    "environment before services": (f"[default]\nservices=local\n{SERVICES}", "", {"AWS_ENDPOINT_URL": "http://global:1"}),
    "environment's s3 before its global": (
        f"[default]\nservices=local\n{SERVICES}",
        "",
        {"AWS_ENDPOINT_URL": "http://global:1", "AWS_ENDPOINT_URL_S3": "http://s3:1"},
    ),
    "environment before a services section that is missing": (
        "[default]\nservices=none\nendpoint_url=http://p:1\n",
        "",
        {"AWS_ENDPOINT_URL": "http://global:1"},
    ),
    "ignored by the environment": (
        f"[default]\nservices=local\n{SERVICES}",
        "",
        {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "True", "AWS_ENDPOINT_URL": "http://global:1"},
    ),
    "ignored by the profile": (
        "[default]\nignore_configured_endpoint_urls = true\nendpoint_url=http://p:1\n",
        "",
        {"AWS_ENDPOINT_URL_S3": "http://s3:1"},
    ),
    "environment will not ignore": (
        "[default]\nignore_configured_endpoint_urls = true\nendpoint_url=http://p:1\n",
        "",
        {"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "false"},
    ),
    "ignore is no word of truth": ("[default]\nignore_configured_endpoint_urls = yes\nendpoint_url=http://p:1\n", "", {}),
    "credentials file": ("", "[default]\nendpoint_url=http://credentials:1\n", {}),
    "credentials file first": ("[default]\nendpoint_url=http://a:1\n", "[default]\nendpoint_url=http://credentials:1\n", {}),
    "both files make one profile": ("[profile b]\nendpoint_url=http://b:1\n", "[b]\nca_bundle=/b.pem\n", {"AWS_PROFILE": "b"}),
    "bundle": ("[default]\nca_bundle = /profile.pem\n", "", {}),
    "bundle of the environment": ("[default]\nca_bundle = /profile.pem\n", "", {"AWS_CA_BUNDLE": "/environment.pem"}),
    "upper case": ("[default]\nENDPOINT_URL = http://profile:1\n", "", {}),
    "comments": ("# x\n[default] \n; y\nendpoint_url: http://profile:1\n", "", {}),
    "percent": ("[default]\nx=%(y)s\nendpoint_url=http://p:1\n", "", {}),
    "section without a value": ("[profile a b c]\nendpoint_url=http://x:1\n[profile ']\nregion=x\n", "", {}),
}


@pytest.mark.parametrize(("config", "credentials", "environ"), AGREED.values(), ids=AGREED)
def test_endpoint_and_bundle_are_those_of_botocore(config, credentials, environ, files: AwsFiles, tmp_path, monkeypatch):
    files.config(config)
    files.credentials(credentials)
    for name, text in environ.items():
        monkeypatch.setenv(name, text)
    ours = load_config({}, os.environ, tmp_path, find_profile=find_profile)
    assert of_botocore() == (ours.endpoint_url, ours.ca_bundle)


def test_our_own_names_go_first(files: AwsFiles, tmp_path: Path):
    files.config("[default]\nendpoint_url=http://profile:1\nignore_configured_endpoint_urls=true\nca_bundle=/profile.pem\n")
    ours = {"ACTORSYNC_ENDPOINT_URL": "http://ours:1", "ACTORSYNC_CA_BUNDLE": "/ours.pem"}
    config = load_config({}, {**os.environ, **ours}, tmp_path, find_profile=find_profile)
    assert ("http://ours:1", "/ours.pem") == (config.endpoint_url, config.ca_bundle)


def test_sources_name_profile_and_file_as_they_are_written(files: AwsFiles, tmp_path: Path, monkeypatch):
    monkeypatch.delenv("AWS_CONFIG_FILE")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[profile minio]\nendpoint_url=http://minio:9000\n")
    files.credentials("[minio]\nca_bundle=/minio.pem\n")
    config = load_config({}, {**os.environ, "AWS_PROFILE": "minio"}, tmp_path, find_profile=find_profile)
    assert "profile minio in ~/.aws/config" == config.sources["endpoint_url"]
    assert f"profile minio in {files.folder}/credentials" == config.sources["ca_bundle"]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("[default]\nendpoint_url = store:9000\n", "endpoint_url = 'store:9000' is not http://"),
        ("[default]\nendpoint_url = http://user:hunter2@store\n", "endpoint_url = *** holds a user name"),
        ("[default]\nservices = none\n# endpoint_url\n", "names the services section 'none'"),
        ("[default]\nservices = x\n[services x]\ns3 = hunter2\n# endpoint_url\n", "names the services section 'x'"),
        ("endpoint_url = http://x:1\n[default]\naws_secret_access_key=hunter2\n", "cannot be parsed, and sets endpoint_url"),
        ("[default]\nendpoint_url = http://x:1\n[default]\nca_bundle=y\n", "cannot be parsed, and sets"),
        (b"[default]\nca_bundle = \xff\n", "cannot be parsed, and sets ca_bundle"),
        ("[default]\nendpoint_url =\n  hunter2\n", "cannot be parsed, and sets endpoint_url"),
    ],
)
def test_what_a_profile_sets_wrongly_is_said(config, words: str, files: AwsFiles, tmp_path: Path):
    files.config(config)
    with pytest.raises(ConfigError) as caught:
        load_config({}, os.environ, tmp_path, find_profile=find_profile)
    assert words in str(caught.value)
    assert "config" in str(caught.value) and caught.value.hint
    assert "hunter2" not in f"{caught.value}{caught.value.hint}{caught.value.__cause__!r}"


@pytest.mark.parametrize("config", ["region = eu-west-1\n[broken", b"[default]\n# \xff", "[default]\nx =\n  y\n"])
def test_a_broken_file_that_sets_none_of_it_is_passed_over(config, files: AwsFiles):
    files.config(config)
    assert AwsProfile() == find_profile(os.environ)
    assert find_profile_region() is None


def test_the_region_is_the_profiles(files: AwsFiles):
    assert find_profile_region() is None
    files.config("[default]\nregion = eu-west-3\n")
    assert "eu-west-3" == find_profile_region()
    files.config("[default]\nregion = eu west\n")
    assert find_profile_region() is None
