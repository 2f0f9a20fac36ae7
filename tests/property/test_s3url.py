import string
from urllib.parse import urlsplit

from botocore.utils import percent_encode
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from daemon.core import s3url
from daemon.core.errors import UrlRefused
from daemon.core.model import EndpointVariant, ObjectRef
from daemon.core.s3url import build_s3_url, origin_of, parse_s3_url

CODES = {
    *("url-not-text", "url-malformed", "url-encoding", "url-not-s3", "url-query"),
    *("url-website", "url-access-point", "url-express"),
}
ENDPOINTS = ["http://localhost:9000", "https://minio.example", "http://[::1]:9000", "http://10.0.0.1"]
REGIONS = [
    *("us-east-1", "us-west-2", "ap-southeast-3", "us-gov-west-1", "mx-central-1"),
    *("cn-north-1", "eusc-de-east-1", "us-iso-east-1"),
]
DOMAINS = tuple(s3url._DOMAINS.values())
CANARY = "hunter2"

quick = settings(max_examples=60, deadline=None)

# What a bucket may be called so that it looks like a piece of a host.
host_pieces = st.sampled_from(
    [
        "s3",
        "s3-us-west-2",
        "dualstack",
        "s3-fips",
        "s3-website",
        "s3-accelerate",
        "us-west-2",
        "amazonaws",
        "com",
        "cn",
        "vpce",
        "b",
    ]
)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True) | host_pieces
buckets = (
    labels
    | st.lists(labels, min_size=2, max_size=5).map(".".join)
    | st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=70)
).filter(lambda name: name not in (".", "..") and not name.endswith(("--x-s3", "--xa-s3", "--op-s3", ".mrap")))
whole_text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
awkward = st.lists(
    st.sampled_from(
        ["/", "//", ".", "..", " ", "+", "%", "%2F", "%zz", "?", "#", "&", "=", "@", ":", "\\", "\t", "é", "e\u0301", "a"]
    ),
    min_size=1,
    max_size=12,
).map("".join)
keys = whole_text | awkward


@st.composite
def refs(draw: st.DrawFn) -> ObjectRef:
    """Any ref that a URL can name."""
    variant = draw(st.sampled_from(EndpointVariant))
    accelerated = variant in (EndpointVariant.ACCELERATE, EndpointVariant.ACCELERATE_DUALSTACK)
    bucket = draw(labels if accelerated else buckets)
    regions = [None] if accelerated else [None, *REGIONS] if variant is EndpointVariant.STANDARD else REGIONS
    region = draw(st.sampled_from(regions))
    version = draw(st.none() | keys.filter(lambda text: not s3url._NAMES_PART.search(text)))
    ref = ObjectRef(bucket, draw(keys), version, region, variant)
    if region is None or variant is not EndpointVariant.STANDARD:
        return ref
    return ref._replace(vpc_endpoint=draw(st.none() | st.just("vpce-1a-2b")))


@quick
@given(refs())
def test_url_that_is_built_names_the_object_that_it_was_built_for(ref: ObjectRef) -> None:
    assert ref == parse_s3_url(build_s3_url(ref))


@quick
@given(refs(), st.sampled_from(ENDPOINTS))
def test_so_does_the_url_at_an_endpoint(ref: ObjectRef, endpoint: str) -> None:
    assert ObjectRef(ref.bucket, ref.key, ref.version_id) == parse_s3_url(build_s3_url(ref, endpoint=endpoint), endpoint)


@quick
@given(refs())
def test_key_is_encoded_as_sigv4_signs_it(ref: ObjectRef) -> None:
    assert build_s3_url(ref).partition("?")[0].endswith("/" + percent_encode(ref.key, safe="/~"))


@quick
@given(refs())
def test_request_goes_to_its_origin(ref: ObjectRef) -> None:
    asked, origin = urlsplit(build_s3_url(ref)), urlsplit(origin_of(ref))
    assert origin.scheme == asked.scheme
    assert asked.netloc in (origin.netloc, f"{ref.bucket}.{origin.netloc}")
    assert origin_of(ref) == origin_of(parse_s3_url(f"{build_s3_url(ref._replace(version_id=None))}?X-Amz-Signature=0"))


@quick
@given(buckets, keys)
def test_s3_uri_is_taken_to_the_letter(bucket: str, key: str) -> None:
    assume(all(character.isprintable() or ord(character) > 0x9F for character in key) and key == key.rstrip())
    assume(not s3url._looks_like_host(bucket, None))
    assert ObjectRef(bucket, key) == parse_s3_url(f"s3://{bucket}/{key}")


@quick
@given(refs(), st.sampled_from(["X-Amz-Signature=0", "Expires=1&Signature=0&AWSAccessKeyId=A"]))
def test_presigned_url_is_the_same_object_and_the_same_text(ref: ObjectRef, signature: str) -> None:
    url = build_s3_url(ref)
    signed = f"{url}{'&' if '?' in url else '?'}{signature}"
    expected = ref._replace(presigned_url=signed)
    assert expected == parse_s3_url(signed)
    assert signed == build_s3_url(expected, region="eu-west-1", endpoint=ENDPOINTS[0])


# --- adversaries ------------------------------------------------------------------------------------------------------

s3_hosts = st.sampled_from(
    [
        "s3.amazonaws.com",
        "b.s3.amazonaws.com",
        "b.s3.us-west-2.amazonaws.com",
        "b.s3-us-west-2.amazonaws.com",
        "s3.dualstack.us-west-2.amazonaws.com",
        "b.s3-accelerate.amazonaws.com",
        "b.s3.cn-north-1.amazonaws.com.cn",
        "b.s3.eusc-de-east-1.amazonaws.eu",
        "b.s3.us-isob-east-1.sc2s.sgov.gov",
        "b.bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com",
    ]
)
strangers = st.sampled_from(
    ["evil.com", "localhost", "169.254.169.254", "[fd00:ec2::254]", "[::1]", "127.1", "0x7f000001", "evil.cn"]
)
joints = st.sampled_from(
    ["", ".", "@", ":", ":@", "\\", "\\@", "/", "?", "#", "%2e", "%40", "%00", "。", " ", "-", "x", ";", ",", "&", "//"]
)
jumbles = st.lists(s3_hosts | strangers | joints | host_pieces, min_size=1, max_size=6).map("".join)
wrapped = st.tuples(s3_hosts, joints, strangers).map("".join) | st.tuples(strangers, joints, s3_hosts).map("".join)


@st.composite
def edited(draw: st.DrawFn) -> str:
    """An S3 host with one character put in, put over another, or left out."""
    host: str = draw(s3_hosts)
    at = draw(st.integers(0, len(host)))
    character = draw(st.sampled_from([*".-_@:/\\%x1A\u212a\u017f。é", ""]))
    return host[:at] + character + host[at + draw(st.integers(0, 1)) :]


authorities = edited() | wrapped | jumbles
schemes = st.sampled_from(
    ["https://", "http://", "HTTPS://", "s3://", "file://", "ftp://", "//", "https:", "https:/", "https:\\\\", ""]
)
queries = st.sampled_from(["", "?X-Amz-Signature=0", "?Signature=0&AWSAccessKeyId=A", "?versionId=%zz", "?versionId=1"])


def hosts_as_clients_read_them(url: str) -> set[tuple[str | None, str | None, int | None]]:
    """User, host and port by two parsers that are not ours."""
    one, other = urlsplit(url), parse_url(url)
    return {(one.username, one.hostname, one.port), (other.auth, other.host, other.port)}


@settings(quick, max_examples=300)
@given(st.sampled_from(["https", "http"]), authorities, queries)
def test_host_that_is_not_s3_is_never_accepted(scheme: str, authority: str, query: str) -> None:
    url = f"{scheme}://{authority}/b/k{query}"
    try:
        ref = parse_s3_url(url)
    except UrlRefused:
        return
    try:
        [(user, host, port)] = hosts_as_clients_read_them(ref.presigned_url or url)
    except (ValueError, LocationParseError):
        # They take less than we do in a path; what is sent then is our own text.
        assert ref.presigned_url is None
        [(user, host, port)] = hosts_as_clients_read_them(build_s3_url(ref))
    assert user is None
    assert port in (None, {"https": 443, "http": 80}[scheme])
    assert host is not None
    (domain,) = [domain for domain in DOMAINS if host.endswith(f".{domain}")]
    piece = host.removesuffix(f".{domain}")
    assert any(label == "s3" or label.startswith("s3-") for label in piece.split(".")[-3:])


@quick
@given(
    jumbles | st.text(max_size=20),
    st.sampled_from([".evil.com", "@evil.com", ".evil.com:443", ".amazonaws.com.evil.cn", "@[::1]"]),
)
def test_host_that_ends_elsewhere_is_never_accepted(start: str, end: str) -> None:
    assume(not set(start) & set("/?#"))
    for url in (f"https://{start}{end}/b/k", f"https://{start}{end}/b/k?X-Amz-Signature=0"):
        try:
            parse_s3_url(url, ENDPOINTS[2])
        except UrlRefused:
            continue
        raise AssertionError(f"{url!r} was taken for an S3 URL")


@quick
@given(
    st.sampled_from(["versionId", "versionid", "VersionId", "version-id", "version_id", "x-amz-version-id", "%76ersionId"]),
    st.sampled_from(["", "a=1&", "a=1;", "a=1?", "a=1&amp;", "a=1%26", "a=1%3B", "a=1%2526", " ", "&", ";", "a=versionId&"]),
    st.sampled_from(["", "&b=2", ";b=2", "&versionId=w", "&versionId=v"]),
)
def test_query_that_speaks_of_a_version_never_gives_the_current_one(name: str, before: str, after: str) -> None:
    try:
        ref = parse_s3_url(f"https://b.s3.amazonaws.com/k?{before}{name}=v{after}")
    except UrlRefused as refused:
        assert "url-query" == refused.code
    else:
        assert ref.version_id in ("v", "v;b=2")  # the latter as S3 would read it, which knows no such version


texts = st.text(max_size=40) | st.tuples(schemes, authorities, st.sampled_from(["", "/"]), keys, queries).map("".join)
endpoints = st.none() | st.sampled_from(ENDPOINTS)


@settings(quick, max_examples=150)
@given(texts | st.none() | st.integers() | st.binary() | st.lists(st.text()), endpoints)
def test_whatever_stands_in_a_manifest_is_an_object_or_refused(url: object, endpoint: str | None) -> None:
    try:
        ref = parse_s3_url(url, endpoint)
    except UrlRefused as refused:
        assert refused.code in CODES
        assert str(refused).isprintable()
        assert refused.hint
    else:
        assert ref.bucket
        assert ref.key
        assert ref.key.encode().decode() == ref.key
        assert build_s3_url(ref, endpoint=endpoint).isascii()


@settings(quick, max_examples=150)
@given(
    schemes,
    authorities,
    keys,
    st.sampled_from(["?", "/?", "?a=1&", "?X-Amz-Signature=", "?versionId=%zz", "?\t", "?%\ud800"]),
    endpoints,
)
def test_no_error_holds_the_query_of_a_url(scheme: str, authority: str, key: str, question: str, endpoint: str | None) -> None:
    for url in (
        f"{scheme}{authority}/{key}{question}{CANARY}",
        f"{scheme}{authority}{question}{CANARY}",
        f"{scheme}{authority}{question}{CANARY} ",
        f"{scheme}user:{CANARY}@{authority}/{key}",
        f"{scheme}user:a:{CANARY}@{authority}/{key}",
    ):
        try:
            parse_s3_url(url, endpoint)
        except UrlRefused as refused:
            assert CANARY not in f"{refused} {refused!r} {refused.hint}"
