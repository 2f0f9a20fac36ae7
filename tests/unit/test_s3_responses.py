"""What the adapter reads out of an answer that is no object."""

from datetime import UTC, datetime

import pytest

from daemon.adapters.http.s3_responses import refusal_of

NOW = datetime(2026, 11, 28, 11, 0, tzinfo=UTC).timestamp()


def document(code: str = "AccessDenied", message: str = "no") -> bytes:
    return f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def message_of(message: str) -> str:
    return str(refusal_of(403, {}, document(message=message))).removeprefix("S3 answered 403 AccessDenied: ")


@pytest.mark.parametrize(
    ("plain", "xml"),
    [
        ("the server's time", "the server&#39;s time"),
        ("the server's time", "the server&#x27;s time"),
        ("the server's time", "the server&apos;s time"),
        ('a & b <c> "d"', "a &amp; b &lt;c&gt; &quot;d&quot;"),
        ("&lt;", "&amp;lt;"),  # decoded once
        ("&copy; &lol9; &", "&copy; &lol9; &"),  # not XML's own
        ("é", "&#xe9;"),
        ("\ufffd", "&#9999999;"),
        ("a b", "a&#0;&#27;\n\t&#x202e;&#xd800; b"),
    ],
)
def test_message_is_decoded_once_and_printable(plain: str, xml: str) -> None:
    assert plain == message_of(xml)


@pytest.mark.parametrize(
    "xml",
    [
        "https://b.s3.amazonaws.com/k?X-Amz-Signature=feed5eed is wrong",
        "https://b.s3.amazonaws.com/k&#63;X-Amz-Signature=feed5eed is wrong",
        "https://b.s3.amazonaws.com/k&#x3f;a=&apos;&amp;X-Amz-Signature=feed5eed is wrong",
        "https://b.s3.amazonaws.com/k?a='x'&amp;b=feed5eed is wrong",
        "X-Amz-Signature=feed5eed&amp;x-amz-security-token=feed5eed is wrong",
        "AWS4-HMAC-SHA256 Credential=feed5eed/2026, SignedHeaders=host, Signature=feed5eed is wrong",
    ],
)
def test_message_holds_no_signature(xml: str) -> None:
    assert "feed5eed" not in message_of(xml)
    assert message_of(xml).endswith(" is wrong")


def test_message_and_code_are_cut_after_decoding() -> None:
    error = refusal_of(403, {}, document("C&#39;" * 100, "m&amp;" * 1000))
    assert "C'" * 32 == error.s3_code
    assert f"S3 answered 403 {error.s3_code}: {'m&' * 150}" == str(error)


DATES = [
    (1200, {b"date": b"Sat, 28 Nov 2026 11:20:00 GMT"}),
    (-1200, {b"date": b"Sat, 28 Nov 2026 10:40:00 GMT"}),
    (86400, {b"date": b"Sun, 29 Nov 2026 11:00:00 GMT"}),
    (59, {b"date": b"Sat, 28 Nov 2026 11:00:60 GMT"}),  # a leap second
    (None, {}),
    (None, {b"date": b"Sat, 28 Nov 2026 11:20:00 GMT", b"age": b"0"}),
    (None, {b"date": b"Sat, 31 Feb 2026 11:20:00 GMT"}),
    (None, {b"date": b"Sat, 28 Foo 2026 11:20:00 GMT"}),
    (None, {b"date": b"Sat, 28 Nov 2026 11:20:00 CET"}),
    (None, {b"date": b"Sat, 28 Nov 0000 11:20:00 GMT"}),
    (None, {b"date": b"Saturday, 28-Nov-26 11:20:00 GMT"}),
    (None, {b"date": b"9" * 5000}),
]


@pytest.mark.parametrize(("behind", "headers"), DATES, ids=str)
def test_date_of_the_answer_says_how_far_our_clock_is_off(behind: float | None, headers: dict[bytes, bytes]) -> None:
    hint = refusal_of(403, headers, document("SignatureDoesNotMatch"), clock=NOW).hint
    if behind is None or abs(behind) < 300:
        assert "clock" not in hint
    else:
        side = "behind" if behind > 0 else "ahead of"
        span = "24 hours" if behind == 86400 else "20 minutes"
        assert f"this machine's clock is {span} {side} S3's: correct it, then run again" == hint


def test_clock_is_no_cause_where_we_did_not_sign() -> None:
    headers = {b"date": b"Sat, 28 Nov 2026 11:20:00 GMT"}
    assert "clock" not in refusal_of(403, headers, document("AccessDenied", "Request has expired")).hint
