"""Our signatures are those of botocore's own signer."""

from datetime import UTC, datetime
from unittest import mock
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.core.model import Credentials, ObjectRef, Secret
from daemon.core.s3url import build_s3_url
from daemon.core.sigv4 import Signer

whole_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
awkward = st.lists(
    st.sampled_from(
        ["/", "//", ".", "..", " ", "+", "%", "%2F", "?", "#", "&", "=", "~", "'", "(", "*", "é", "e\u0301", "日", "a"]
    ),
    min_size=1,
    max_size=12,
).map("".join)
keys = whole_text | awkward
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=60)
endpoints = st.sampled_from(
    [
        None,
        "http://127.0.0.1:9000",
        "http://minio.example",
        "https://minio.example:8443",
        "https://[::1]:9000",
        "http://[fd00::1]",
    ]
)
refs = st.builds(
    ObjectRef,
    bucket=st.sampled_from(["bucket", "dotted.bucket", "Upper_Case"]),
    key=keys,
    version_id=st.none() | keys,
    region=st.sampled_from(["us-east-1", "eu-central-1", "cn-north-1"]),
    presigned_url=st.none(),
    vpc_endpoint=st.none() | st.just("vpce-1a-2b"),
)
credentials = st.builds(
    Credentials,
    access_key=visible,
    secret_key=visible.map(Secret),
    session_token=st.none() | visible.map(Secret),
    source=st.just("the test"),
)
extra_headers = st.sampled_from(
    [{}, {"x-amz-checksum-mode": "ENABLED"}, {"Range": "bytes=5-"}, {"accept": "*/*", "x-amz-zzz": "z"}]
)
times = st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31))


@settings(deadline=None)
@given(refs, credentials, endpoints, extra_headers, times)
def test_a_get_is_signed_as_botocore_signs_it(ref, credentials, endpoint, extra, moment):
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    url = build_s3_url(ref, endpoint=endpoint)
    host = urlsplit(url).netloc
    target = url.split(host, 1)[1]

    lines = Signer(credentials, ref.region, extra).header_lines(host, target, moment.timestamp() + 0.25)

    assert botocore_headers(url, ref.region, credentials, extra, moment) == headers_of(lines)


def headers_of(lines: str) -> dict[str, str]:
    return {name.lower(): text for name, text in (line.split(": ", 1) for line in lines.removesuffix("\r\n").split("\r\n"))}


def botocore_headers(url, region, credentials, extra, moment) -> dict[str, str]:
    token = credentials.session_token.reveal() if credentials.session_token else None
    own = BotoCredentials(credentials.access_key, credentials.secret_key.reveal(), token)
    request = AWSRequest(method="GET", url=url, headers=extra)
    request.context["payload_signing_enabled"] = True  # over TLS it would say UNSIGNED-PAYLOAD
    with mock.patch("botocore.auth.get_current_datetime", lambda: moment.replace(tzinfo=None)):
        S3SigV4Auth(own, "s3", region).add_auth(request)
    return {name.lower(): text for name, text in request.headers.items()}
