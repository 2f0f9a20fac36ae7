import re
from itertools import product

import botocore.session
import pytest
from botocore.config import Config
from botocore.endpoint_provider import EndpointProvider

from daemon.core import s3url
from daemon.core.errors import UrlRefused
from daemon.core.model import EndpointVariant, ObjectRef
from daemon.core.s3url import build_s3_url, origin_of, parse_s3_url, s3_host

MINIO = "http://minio.example:9000"


def rows_of(table: int) -> list[list[str]]:
    """The cells of a table in the module's docstring, without its two head lines."""
    text = s3url.__doc__ or ""
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[table].splitlines()[2:]]


UNDERSTOOD = rows_of(0)
AT_VPC_ENDPOINTS = rows_of(1)
REFUSED = rows_of(2)


def refusal(url: object, endpoint: str | None = None) -> UrlRefused:
    with pytest.raises(UrlRefused) as refused:
        parse_s3_url(url, endpoint)
    return refused.value


# --- the tables -------------------------------------------------------------------------------------------------------


def test_tables_are_walked_whole() -> None:
    assert len(UNDERSTOOD) > 30
    assert len(AT_VPC_ENDPOINTS) > 3
    assert {code for code, _ in REFUSED} == s3url._HINTS.keys() - {"url-not-text"}


@pytest.mark.parametrize("endpoint", [None, MINIO], ids=["AWS", "endpoint"])
@pytest.mark.parametrize(("url", "path", "region", "variant"), UNDERSTOOD, ids=[row[0] for row in UNDERSTOOD])
def test_every_form_of_the_table_is_understood(url: str, path: str, region: str, variant: str, endpoint: str | None) -> None:
    bucket, _, key = path.partition("/")
    expected = ObjectRef(bucket, key, None, None if region == "-" else region, EndpointVariant(variant))
    assert expected == parse_s3_url(url, endpoint)


@pytest.mark.parametrize("endpoint", [None, MINIO], ids=["AWS", "endpoint"])
@pytest.mark.parametrize(("url", "path", "region", "vpc_endpoint"), AT_VPC_ENDPOINTS)
def test_every_form_of_a_vpc_endpoint_is_asked_there_path_style(
    url: str, path: str, region: str, vpc_endpoint: str, endpoint: str | None
) -> None:
    bucket, _, key = path.partition("/")
    ref = parse_s3_url(url, endpoint)
    assert ObjectRef(bucket, key, region=region, vpc_endpoint=vpc_endpoint) == ref
    host = f"https://bucket.{vpc_endpoint}.s3.{region}.vpce.amazonaws.com" + ".cn" * region.startswith("cn")
    assert f"{host}/{path}" == build_s3_url(ref, region="eu-west-1")  # where a redirect said that the bucket is
    assert host == origin_of(ref, region="eu-west-1") == origin_of(parse_s3_url(f"{host}/{path}?X-Amz-Signature=0"))
    assert f"{MINIO}/{path}" == build_s3_url(ref, endpoint=MINIO)


@pytest.mark.parametrize("endpoint", [None, MINIO], ids=["AWS", "endpoint"])
@pytest.mark.parametrize(("code", "url"), REFUSED, ids=[row[1] or "empty" for row in REFUSED])
def test_every_refusal_of_the_table_has_its_code(code: str, url: str, endpoint: str | None) -> None:
    error = refusal(url, endpoint)
    assert code == error.code
    assert error.hint


@pytest.mark.parametrize(
    "url", [None, True, 7, 1.5, b"https://b.s3.amazonaws.com/k", ["s3://b/k"], {"url": "s3://b/k"}], ids=repr
)
def test_entry_that_is_no_text_is_refused_by_its_type(url: object) -> None:
    expected = "url-not-text"
    assert expected == refusal(url).code
    assert type(url).__name__ in str(refusal(url))


@pytest.mark.parametrize("character", [*map(chr, range(32)), *map(chr, range(127, 160))], ids=ascii)
@pytest.mark.parametrize(
    "shape", ["https://b.s3.ama{}zonaws.com/k", "https://b.s3.amazonaws.com/a{}b", "{}s3://b/k", "s3://b/a{}b"]
)
def test_control_character_is_refused_wherever_it_stands(shape: str, character: str) -> None:
    expected = "url-malformed"
    assert expected == refusal(shape.format(character)).code


@pytest.mark.parametrize("space", [" ", "\u00a0", "\u2003", "\u3000"], ids=ascii)
@pytest.mark.parametrize(
    "shape", ["{}https://b.s3.amazonaws.com/k", "https://b.s3.amazonaws.com/k{}", "s3://b/k{}", "{}s3://b/k"]
)
def test_white_space_at_an_end_is_refused(shape: str, space: str) -> None:
    expected = "url-malformed"
    assert expected == refusal(shape.format(space)).code


@pytest.mark.parametrize(
    "url", ["https://b.s3.amazonaws.com/\ud800", "https://b.s3.amazonaws.com/%41\udfff", "s3://b/\ud800"], ids=ascii
)
def test_lone_surrogate_in_a_key_is_an_encoding_error(url: str) -> None:
    expected = "url-encoding"
    assert expected == refusal(url).code


@pytest.mark.parametrize("bucket", ["a" * 255, "A", "a", "-a_", "..a"])
def test_longest_and_oddest_buckets_are_taken_in_a_path(bucket: str) -> None:
    expected = ObjectRef(bucket, "k")
    assert expected == parse_s3_url(f"https://s3.amazonaws.com/{bucket}/k")
    assert expected == parse_s3_url(f"s3://{bucket}/k")


@pytest.mark.parametrize("bucket", ["a" * 256, ".", "..", "a b", "a%20b", "é", "a:b", "a%00b", "a\\b"])
def test_what_no_bucket_was_ever_called_is_refused(bucket: str) -> None:
    expected = "url-malformed"
    assert expected == refusal(f"https://s3.amazonaws.com/{bucket}/k").code
    assert expected == refusal(f"s3://{bucket}/k").code


def test_kelvin_sign_is_no_k() -> None:
    expected = "url-not-s3"
    assert expected == refusal("https://s3.dualstac\u212a.us-west-2.amazonaws.com/b/k").code


def test_local_name_is_the_last_piece_of_the_decoded_key() -> None:
    expected = ["d.png", ""]
    assert expected == [parse_s3_url(f"https://b.s3.amazonaws.com/{key}").name for key in ("a/b%2Fc%2fd.png", "folder/")]


# --- versions and signatures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "version_id"),
    [
        ("versionId=3/L4kqtJlcpXroDTDmJ", "3/L4kqtJlcpXroDTDmJ"),
        ("versionId=a%2Bb+c%C3%A9", "a+b+cé"),
        ("x=1&versionId=v&y", "v"),
        ("%76ersionId=v", "v"),
        ("versionId=v=w", "v=w"),
        ("versionId=null", "null"),  # the version from before versioning
        ("versionId=v&versionId=v", "v"),
        ("versionId=v#versionId=w", "v"),
        ("versionId=", None),
        ("versionId", None),
        ("response-content-type=image/png&versionId=v", "v"),
        ("x-id=GetObject;a=1", None),
        ("&&=&", None),
        ("", None),
    ],
)
def test_version_in_the_query_is_honoured(query: str, version_id: str | None) -> None:
    assert version_id == parse_s3_url(f"https://b.s3.amazonaws.com/k?{query}").version_id


@pytest.mark.parametrize(
    "query", ["response-content-disposition=attachment%3B%20filename%3Da.png", "x-id=GetObject", "v=2", "version=3"]
)
def test_query_that_changes_no_byte_is_dropped(query: str) -> None:
    assert ObjectRef("b", "k") == parse_s3_url(f"https://b.s3.amazonaws.com/k?{query}")


def test_what_a_presigned_query_means_is_left_to_s3() -> None:
    url = "https://b.s3.amazonaws.com/k?partNumber=1&versionid=v&X-Amz-Signature=0"
    assert ObjectRef("b", "k", presigned_url=url) == parse_s3_url(url)


@pytest.mark.parametrize("url", [url for code, url in REFUSED if code == "url-query"])
def test_hint_says_how_a_version_is_named(url: str) -> None:
    assert "?versionId=VERSION" in refusal(url).hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://b.s3.amazonaws.com/k",
        "s3://B.S3.us-west-2.amazonaws.com/k",
        "s3://minio.example:9000/b/k",
        "s3://minio.example/b/k",
        "s3://b.minio.example/k",
        "s3://https://minio.example/b/k",
    ],
)
def test_host_in_place_of_a_bucket_is_refused_with_the_right_form(url: str) -> None:
    assert ("url-malformed", True) == (refusal(url, MINIO).code, "s3://BUCKET/KEY" in refusal(url, MINIO).hint)


@pytest.mark.parametrize("bucket", ["minio.example", "b.minio.example", "s3", "s3.us-west-2", "amazonaws.com", "example"])
def test_bucket_that_is_no_host_of_ours_is_taken(bucket: str) -> None:
    assert ObjectRef(bucket, "k") == parse_s3_url(f"s3://{bucket}/k")


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F&X-Amz-Signature=00",
        "X-Amz-Signature=00",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256",
        "x=1&%58-Amz-Signatur%65=00",
        "AWSAccessKeyId=A&Signature=a%2Bb%3D&Expires=1",
    ],
)
@pytest.mark.parametrize(
    "base",
    [
        "https://b.s3.us-west-2.amazonaws.com/a%20k",
        "http://b.s3.amazonaws.com:80/a%20k",
        "HTTPS://S3-US-WEST-2.amazonaws.com/b/%61%20k",
        "https://b.s3-accelerate.amazonaws.com/a%20k",
        "http://minio.example:9000/b/a%20k",
    ],
)
def test_presigned_url_is_kept_to_the_letter(base: str, query: str) -> None:
    url = f"{base}?{query}"
    ref = parse_s3_url(f"{url}#top", MINIO)
    assert ObjectRef("b", "a k", None, ref.region, ref.variant, url) == ref
    assert url == build_s3_url(ref) == build_s3_url(ref, region="eu-west-1", endpoint=MINIO)
    assert "?" not in repr(ref)


@pytest.mark.parametrize(
    "query", ["Signature=00", "AWSAccessKeyId=A", "x-amz-signature=00", "X-Amz-Credential=A", "k=X-Amz-Signature"]
)
def test_query_that_does_not_sign_is_dropped(query: str) -> None:
    assert ObjectRef("b", "k") == parse_s3_url(f"https://b.s3.amazonaws.com/k?{query}")


@pytest.mark.parametrize("path", ["a b", "é", "\u202e"], ids=ascii)
def test_presigned_url_that_cannot_be_sent_as_it_is_is_refused(path: str) -> None:
    expected = "url-malformed"
    assert expected == refusal(f"https://b.s3.amazonaws.com/{path}?X-Amz-Signature=0").code


@pytest.mark.parametrize("version", ["s3", "s3v4"])
@pytest.mark.parametrize("style", ["virtual", "path"])
def test_urls_that_boto3_presigns_are_known_as_presigned(version: str, style: str) -> None:
    session = botocore.session.Session()
    session.set_credentials("AKIAEXAMPLE", "secret", "token")
    config = Config(signature_version=version, s3={"addressing_style": style})
    client = session.create_client("s3", region_name="us-west-2", config=config)
    url = client.generate_presigned_url("get_object", {"Bucket": "b-1", "Key": "a b/+é.png", "VersionId": "v+1"})
    ref = parse_s3_url(url)
    assert ObjectRef("b-1", "a b/+é.png", "v+1", "us-west-2", EndpointVariant.STANDARD, url) == ref


# --- an endpoint ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (MINIO, "http://minio.example:9000/b/a//k"),
        (MINIO, "https://minio.example:9000/b/a//k"),
        (MINIO, "http://MINIO.example:09000/b/a//k?x=1#y"),
        (MINIO + "/", "http://minio.example:9000/b/a//k"),
        ("http://HOST_1:80", "http://host_1/b/a//k"),
        ("https://host", "https://host:443/b/a//k"),
        ("https://host", "https://host:/b/a//k"),
        ("https://host", "http://host/b/a//k"),
        ("http://[::1]:9000", "http://[::1]:9000/b/a//k"),
        ("http://[FD00:ec2::1]", "http://[fd00:EC2::1]:80/b/a//k"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000/b/a//k"),
    ],
)
def test_url_at_the_endpoint_is_read_path_style(endpoint: str, url: str) -> None:
    assert ObjectRef("b", "a//k") == parse_s3_url(url, endpoint)


SPACES = "https://nyc3.digitaloceanspaces.com"


@pytest.mark.parametrize(
    ("endpoint", "url", "bucket"),
    [
        (SPACES, "https://bucket.nyc3.digitaloceanspaces.com/a//k", "bucket"),
        (SPACES, "https://BUCKET.NYC3.digitaloceanspaces.com:443/a//k", "bucket"),
        (SPACES, "http://a.b.nyc3.digitaloceanspaces.com/a//k", "a.b"),
        (MINIO, "http://b_1.minio.example:9000/a//k?x=1", "b_1"),
        ("http://localhost:9000", "http://b.localhost:9000/a//k", "b"),
        ("https://s3.eu-west-1.wasabisys.com", "https://b.s3.eu-west-1.wasabisys.com/a//k", "b"),
        ("https://1a2b.r2.cloudflarestorage.com", "https://b.1a2b.r2.cloudflarestorage.com/a//k", "b"),
    ],
)
def test_bucket_before_the_endpoints_host_is_asked_path_style(endpoint: str, url: str, bucket: str) -> None:
    ref = parse_s3_url(url, endpoint)
    assert ObjectRef(bucket, "a//k") == ref
    assert f"{endpoint}/{bucket}/a//k" == build_s3_url(ref, endpoint=endpoint)


def test_presigned_url_with_bucket_before_endpoint_host_is_sent_unchanged() -> None:
    url = "https://bucket.nyc3.digitaloceanspaces.com/k?X-Amz-Signature=0"
    ref = parse_s3_url(url, SPACES)
    assert ObjectRef("bucket", "k", presigned_url=url) == ref
    assert (url, SPACES) == (build_s3_url(ref), origin_of(ref, endpoint=SPACES))


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        (MINIO, "http://minio.example/b/k"),
        (MINIO, "http://minio.example:9001/b/k"),
        (MINIO, "http://b.minio.example:9001/k"),
        (MINIO, "http://b.minio.example/k"),
        (MINIO, "http://bminio.example:9000/k"),
        (MINIO, "http://.minio.example:9000/k"),
        (MINIO, "http://a..minio.example:9000/k"),
        (MINIO, "http://b.minio.example.evil.com:9000/k"),
        (SPACES, "https://bucket.ams3.digitaloceanspaces.com/k"),
        (SPACES, "https://digitaloceanspaces.com/b/k"),
        (SPACES, "https://bucket.nyc3.cdn.digitaloceanspaces.com/k"),
        ("http://10.0.0.1", "http://1.10.0.0.1/k"),
        ("http://[::1]:9000", "http://b.[::1]:9000/k"),
        (MINIO, "http://minio.example.evil.com:9000/b/k"),
        (MINIO, "http://minio.example:9000@evil.com/b/k"),
        (MINIO, "http://user@minio.example:9000/b/k"),
        (MINIO, "http://minio.example:9000\\@evil.com/b/k"),
        (MINIO, "http://minio.example:90000/b/k?X-Amz-Signature=0"),
        (MINIO, "ftp://minio.example:9000/b/k"),
        ("https://host", "https://host:80/b/k"),
        ("http://[::1]:9000", "http://::1:9000/b/k"),
        ("http://[::1]:9000", "http://[::1]x:9000/b/k"),
    ],
)
def test_anything_beside_the_endpoint_is_refused(endpoint: str, url: str) -> None:
    expected = "url-not-s3"
    assert expected == refusal(url, endpoint).code


def test_presigned_elsewhere_is_refused_with_an_endpoint_too() -> None:
    expected = "url-not-s3"
    assert expected == refusal("https://evil.com/b/k?X-Amz-Signature=0", MINIO).code


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ref", "region", "url"),
    [
        (ObjectRef("b", "k"), None, "https://b.s3.amazonaws.com/k"),
        (ObjectRef("b", "k"), "us-west-1", "https://b.s3.us-west-1.amazonaws.com/k"),
        (ObjectRef("b", "k", region="eu-west-1"), None, "https://b.s3.eu-west-1.amazonaws.com/k"),
        (ObjectRef("b", "k", region="eu-west-1"), "us-west-1", "https://b.s3.us-west-1.amazonaws.com/k"),
        (ObjectRef("b", "k", region="cn-north-1"), None, "https://b.s3.cn-north-1.amazonaws.com.cn/k"),
        (ObjectRef("b", "k"), "eusc-de-east-1", "https://b.s3.eusc-de-east-1.amazonaws.eu/k"),
        (ObjectRef("a.b", "k"), "us-iso-east-1", "https://s3.us-iso-east-1.c2s.ic.gov/a.b/k"),
        (ObjectRef("a.b", "k"), "us-west-1", "https://s3.us-west-1.amazonaws.com/a.b/k"),
        (ObjectRef("A", "k"), None, "https://s3.amazonaws.com/A/k"),
        (ObjectRef("a_b", "k"), None, "https://s3.amazonaws.com/a_b/k"),
        (ObjectRef("-b", "k"), None, "https://s3.amazonaws.com/-b/k"),
        (ObjectRef("b" * 63, "k"), None, f"https://{'b' * 63}.s3.amazonaws.com/k"),
        (ObjectRef("b" * 64, "k"), None, f"https://s3.amazonaws.com/{'b' * 64}/k"),
        (ObjectRef("b", "k", variant=EndpointVariant.FIPS), None, "https://b.s3-fips.us-east-1.amazonaws.com/k"),
        (ObjectRef("a.b", "k", variant=EndpointVariant.DUALSTACK), "us-west-1", "https://s3.dualstack.us-west-1.amazonaws.com/a.b/k"),
        (ObjectRef("b", "k", variant=EndpointVariant.ACCELERATE), "us-west-1", "https://b.s3-accelerate.amazonaws.com/k"),
        (ObjectRef("a.b", "k", variant=EndpointVariant.ACCELERATE), "us-west-1", "https://s3.us-west-1.amazonaws.com/a.b/k"),
        (ObjectRef("b", "/a//../ +%é~?#&=:@!*'()"), None, "https://b.s3.amazonaws.com//a//../%20%2B%25%C3%A9~%3F%23%26%3D%3A%40%21%2A%27%28%29"),
        (ObjectRef("b", "k", version_id="v/+ é"), None, "https://b.s3.amazonaws.com/k?versionId=v%2F%2B%20%C3%A9"),
    ],
)  # fmt: skip
def test_request_goes_to_the_bucket_and_key(ref: ObjectRef, region: str | None, url: str) -> None:
    assert url == build_s3_url(ref, region=region)


@pytest.mark.parametrize(
    "ref", [ObjectRef("b", "k v"), ObjectRef("b", "k v", region="us-west-2", variant=EndpointVariant.ACCELERATE)], ids=str
)
def test_endpoint_takes_every_unsigned_request(ref: ObjectRef) -> None:
    expected = f"{MINIO}/b/k%20v?versionId=1"
    assert expected == build_s3_url(ref._replace(version_id="1"), region="eu-west-1", endpoint=MINIO + "/")
    assert MINIO == origin_of(ref, region="eu-west-1", endpoint=MINIO + "/")


@pytest.mark.parametrize(
    ("url", "region", "origin"),
    [
        ("s3://b/k", None, "https://s3.amazonaws.com"),
        ("s3://b/k", "us-west-1", "https://s3.us-west-1.amazonaws.com"),
        ("http://b.s3-eu-west-1.amazonaws.com:80/k", None, "https://s3.eu-west-1.amazonaws.com"),
        ("https://b.s3.dualstack.eu-west-1.amazonaws.com/k", None, "https://s3.dualstack.eu-west-1.amazonaws.com"),
        ("https://b.s3-accelerate.amazonaws.com/k", "us-west-1", "https://s3-accelerate.amazonaws.com"),
        ("http://b.s3-eu-west-1.amazonaws.com:80/k?X-Amz-Signature=0", "us-west-1", "http://s3-eu-west-1.amazonaws.com"),
        ("HTTPS://a.b.S3.amazonaws.com/k?X-Amz-Signature=0", "us-west-1", "https://s3.amazonaws.com"),
        ("http://minio.example:9000/b/k?X-Amz-Signature=0", None, MINIO),
    ],
)
def test_origin_is_the_host_without_the_bucket(url: str, region: str | None, origin: str) -> None:
    assert origin == origin_of(parse_s3_url(url, MINIO), region=region)


def test_hosts_are_those_that_botocore_would_ask() -> None:
    loader = botocore.session.Session().get_component("data_loader")
    rules = EndpointProvider(loader.load_service_model("s3", "endpoint-rule-set-1"), loader.load_data("partitions"))
    flags = {
        EndpointVariant.STANDARD: (False, False, False),
        EndpointVariant.DUALSTACK: (False, True, False),
        EndpointVariant.FIPS: (True, False, False),
        EndpointVariant.FIPS_DUALSTACK: (True, True, False),
        EndpointVariant.ACCELERATE: (False, False, True),
        EndpointVariant.ACCELERATE_DUALSTACK: (False, True, True),
    }
    partitions = loader.load_data("partitions")["partitions"]
    regions = [name for partition in partitions for name in partition["regions"] if not name.endswith("-global")]
    assert len(regions) > 40
    suffixes = {partition["outputs"]["dnsSuffix"] for partition in partitions}
    assert sorted(suffixes) == sorted(s3url._DOMAINS.values())
    for (variant, (fips, dualstack, accelerate)), region, bucket in product(flags.items(), regions, ["bucket", "my.bucket"]):
        if (region.startswith("cn-") and fips) or (accelerate and ("." in bucket or s3url._domain(region) != "amazonaws.com")):
            continue  # AWS has no such hosts
        asked = rules.resolve_endpoint(
            Bucket=bucket, Region=region, UseFIPS=fips, UseDualStack=dualstack, Accelerate=accelerate, UseGlobalEndpoint=False
        )
        ref = ObjectRef(bucket, "k", region=None if accelerate else region, variant=variant)
        assert f"{asked.url}/k" == build_s3_url(ref)
        assert ref == parse_s3_url(f"{asked.url}/k")
        assert s3_host(variant, region) in asked.url
