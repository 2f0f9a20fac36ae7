"""Signatures that AWS published: "Signature Calculations for the Authorization Header", Amazon S3 API reference."""

from datetime import UTC, datetime

import pytest

from daemon.core.model import Credentials, Secret
from daemon.core.sigv4 import Signer
from tests.support.account import ACCESS_KEY, SECRET_KEY

PAIR = Credentials(ACCESS_KEY, Secret(SECRET_KEY), None, "the test")
EXAMPLE_HOST = "examplebucket.s3.amazonaws.com"
EXAMPLE_TIME = datetime(2013, 5, 24, tzinfo=UTC).timestamp()


def headers_of(lines: str) -> dict[str, str]:
    assert lines.endswith("\r\n")
    return dict(line.split(": ", 1) for line in lines.removesuffix("\r\n").split("\r\n"))


def signature_of(lines: str) -> str:
    return headers_of(lines)["Authorization"].rpartition("Signature=")[2]


class TestAwsExamples:
    def test_get_object(self):
        signer = Signer(PAIR, "us-east-1", {"Range": "bytes=0-9"})

        headers = headers_of(signer.header_lines(EXAMPLE_HOST, "/test.txt", EXAMPLE_TIME))

        assert {
            "range": "bytes=0-9",
            "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "x-amz-date": "20130524T000000Z",
            "Authorization": "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
            "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
            "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        } == headers

    @pytest.mark.parametrize(
        ("target", "signature"),
        [
            ("/?lifecycle=", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ],
    )
    def test_other_gets_with_a_query(self, target: str, signature: str):
        assert signature == signature_of(Signer(PAIR, "us-east-1").header_lines(EXAMPLE_HOST, target, EXAMPLE_TIME))


class TestWhatIsKept:
    @pytest.mark.parametrize("later", [0.0, 0.9, 1.0, 86_399.0, 86_400.0, 31 * 86_400.0, -1.0, -86_400.0])
    def test_a_signer_that_signed_before_signs_as_a_new_one(self, later: float):
        used = Signer(PAIR, "eu-west-1")
        used.header_lines("host", "/a", EXAMPLE_TIME)

        expected = Signer(PAIR, "eu-west-1").header_lines("other.host:9000", "/b?versionId=1", EXAMPLE_TIME + later)
        assert expected == used.header_lines("other.host:9000", "/b?versionId=1", EXAMPLE_TIME + later)

    def test_the_token_of_a_session_is_sent_and_signed(self):
        session = Credentials(ACCESS_KEY, Secret(SECRET_KEY), Secret("token+/="), "the test")

        headers = headers_of(Signer(session, "us-east-1").header_lines("host", "/a", EXAMPLE_TIME))

        assert "token+/=" == headers["x-amz-security-token"]
        assert "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token," in headers["Authorization"]

    def test_the_secret_is_in_nothing_that_is_sent(self):
        assert SECRET_KEY not in Signer(PAIR, "us-east-1").header_lines("host", "/a", EXAMPLE_TIME)
