r"""Parser and builder of S3 URLs in all their forms.

Accepted URLs ("-": not in the URL). The bucket is what precedes the service's labels, read from the right. Hosts are
case-insensitive; http and https name the same object.

| URL                                                   | bucket/key               | region        | variant                 |
|-------------------------------------------------------|--------------------------|---------------|----------------------|
| https://b.s3.us-west-2.amazonaws.com/a/k.png          | b/a/k.png                | us-west-2     | standard             |
| http://b.s3.us-west-2.amazonaws.com/k                 | b/k                      | us-west-2     | standard             |
| HTTPS://B.S3.US-WEST-2.AMAZONAWS.COM:443/K            | b/K                      | us-west-2     | standard             |
| http://b.s3.us-west-2.amazonaws.com:80/k              | b/k                      | us-west-2     | standard             |
| https://s3.us-west-2.amazonaws.com/My_B/a/k           | My_B/a/k                 | us-west-2     | standard             |
| https://b.s3.amazonaws.com/k                          | b/k                      | -             | standard             |
| https://s3.amazonaws.com/b/k                          | b/k                      | -             | standard             |
| https://b.s3-us-west-2.amazonaws.com/k                | b/k                      | us-west-2     | standard             |
| https://s3-us-west-2.amazonaws.com/b/k                | b/k                      | us-west-2     | standard             |
| https://b.s3-external-1.amazonaws.com/k               | b/k                      | us-east-1     | standard             |
| https://s3-external-1.amazonaws.com/b/k               | b/k                      | us-east-1     | standard             |
| https://b.s3.cn-north-1.amazonaws.com.cn/k            | b/k                      | cn-north-1    | standard             |
| https://s3.dualstack.cn-north-1.amazonaws.com.cn/b/k  | b/k                      | cn-north-1    | dualstack            |
| https://b.s3.dualstack.us-west-2.amazonaws.com/k      | b/k                      | us-west-2     | dualstack            |
| https://s3.dualstack.us-west-2.amazonaws.com/b/k      | b/k                      | us-west-2     | dualstack            |
| https://b.s3-fips.us-gov-west-1.amazonaws.com/k       | b/k                      | us-gov-west-1 | fips                 |
| https://s3-fips-us-gov-west-1.amazonaws.com/b/k       | b/k                      | us-gov-west-1 | fips                 |
| https://b.s3-fips.dualstack.us-east-1.amazonaws.com/k | b/k                      | us-east-1     | fips-dualstack       |
| https://b.s3-accelerate.amazonaws.com/k               | b/k                      | -             | accelerate           |
| https://b.s3-accelerate.dualstack.amazonaws.com/k     | b/k                      | -             | accelerate-dualstack |
| https://s3-accelerate.amazonaws.com/b/k               | b/k                      | -             | accelerate           |
| https://s3-accelerate.dualstack.amazonaws.com/a.b/k   | a.b/k                    | -             | accelerate-dualstack |
| https://b.s3.eusc-de-east-1.amazonaws.eu/k            | b/k                      | eusc-de-east-1 | standard            |
| https://s3.dualstack.eusc-de-east-1.amazonaws.eu/b/k  | b/k                      | eusc-de-east-1 | dualstack           |
| https://b.s3.us-iso-east-1.c2s.ic.gov/k               | b/k                      | us-iso-east-1 | standard             |
| https://s3-fips.us-iso-west-1.c2s.ic.gov/b/k          | b/k                      | us-iso-west-1 | fips                 |
| https://b.s3.us-isob-east-1.sc2s.sgov.gov/k           | b/k                      | us-isob-east-1 | standard            |
| https://s3.eu-isoe-west-1.cloud.adc-e.uk/b/k          | b/k                      | eu-isoe-west-1 | standard            |
| https://b.s3.us-isof-south-1.csp.hci.ic.gov/k         | b/k                      | us-isof-south-1 | standard           |
| https://a.b.c.s3.us-west-2.amazonaws.com/k            | a.b.c/k                  | us-west-2     | standard             |
| https://s3.s3.s3.amazonaws.com/k                      | s3.s3/k                  | -             | standard             |
| https://s3-us-west-2.s3.amazonaws.com/k               | s3-us-west-2/k           | -             | standard             |
| https://s3.dualstack.s3.us-west-2.amazonaws.com/k     | s3.dualstack/k           | us-west-2     | standard             |
| https://s3.amazonaws.com.s3.amazonaws.com/k           | s3.amazonaws.com/k       | -             | standard             |
| https://s3-website-us-west-2.s3.amazonaws.com/k       | s3-website-us-west-2/k   | -             | standard             |
| https://b.s3.amazonaws.com//a//../b/.                 | b//a//../b/.             | -             | standard             |
| https://b.s3.amazonaws.com/folder/                    | b/folder/                | -             | standard             |
| https://b.s3.amazonaws.com/a%20b+c%2Bd%2Fe%252F.png   | b/a b+c+d/e%2F.png       | -             | standard             |
| https://b.s3.amazonaws.com/a b\%C3%A9é.png            | b/a b\éé.png             | -             | standard             |
| https://b.s3.amazonaws.com/k?x=%zz&versionId=#v?w     | b/k                      | -             | standard             |
| s3://My.B_1/a%20b?v=1#c+d//..                         | My.B_1/a%20b?v=1#c+d//.. | -             | standard             |

The path is split, then percent-decoded once: `%2F` never ends a bucket. `+` is a plus. The fragment is dropped, and so is the
query except `versionId`: parameters such as `response-content-type` change no byte. A query is refused that names a version in
a form that S3 does not read, two versions, or a part of an object: S3 would send the current version, or the whole object.
What follows `s3://` is the literal bucket and key, as aws-cli writes it.
A query with a signature (`X-Amz-Signature` or `X-Amz-Algorithm`; or `Signature` with `AWSAccessKeyId`) makes the URL
presigned: it is kept as it is, without its fragment. With an endpoint, its host and port are an S3 host too, path style. So is
its host with `BUCKET.` before it, unless it is an IP address. AWS's hosts remain. Requests to the endpoint are path style.

VPC endpoints ("Accessing buckets from S3 interface endpoints", Amazon S3 user guide); requests go there, path style:

| URL                                                                        | bucket/key | region     | VPC endpoint          |
|----------------------------------------------------------------------------|------------|------------|-----------------------|
| https://bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/b/k              | b/k        | us-east-1  | vpce-1a-2b            |
| https://b.bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/k              | b/k        | us-east-1  | vpce-1a-2b            |
| https://a.b.bucket.vpce-1a-2b-us-east-1a.s3.us-east-1.vpce.amazonaws.com/k | a.b/k      | us-east-1  | vpce-1a-2b-us-east-1a |
| https://bucket.bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/k         | bucket/k   | us-east-1  | vpce-1a-2b            |
| https://bucket.vpce-1a-2b.s3.cn-north-1.vpce.amazonaws.com.cn/b/k          | b/k        | cn-north-1 | vpce-1a-2b            |

Refused URLs. A message shows only the host and bucket of a URL: queries and user names are secrets.

| code             | URL                                                                    |
|------------------|------------------------------------------------------------------------|
| url-malformed    |                                                                        |
| url-malformed    | k.png                                                                  |
| url-malformed    | b.s3.amazonaws.com/k                                                   |
| url-malformed    | //b.s3.amazonaws.com/k                                                 |
| url-malformed    | https:b.s3.amazonaws.com/k                                             |
| url-malformed    | https:\\b.s3.amazonaws.com\k                                           |
| url-malformed    | https:///k                                                             |
| url-malformed    | data:image/png;base64,AA                                               |
| url-malformed    | https://b.s3.amazonaws.com                                             |
| url-malformed    | https://b.s3.amazonaws.com/                                            |
| url-malformed    | https://b.s3.amazonaws.com?X-Amz-Signature=0                           |
| url-malformed    | https://s3.amazonaws.com/b                                             |
| url-malformed    | https://s3.amazonaws.com/b/                                            |
| url-malformed    | https://s3.amazonaws.com//k                                            |
| url-malformed    | https://s3.amazonaws.com/../k                                          |
| url-malformed    | https://s3.amazonaws.com/b%2Fk/k                                       |
| url-malformed    | s3://b.s3.amazonaws.com/k                                              |
| url-malformed    | s3://s3.us-west-2.amazonaws.com/b/k                                    |
| url-malformed    | s3://b.s3.eusc-de-east-1.amazonaws.eu/k                                |
| url-malformed    | s3://b.s3-website-us-west-2.amazonaws.com/k                            |
| url-malformed    | s3://bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/b/k             |
| url-malformed    | s3://s3.example.com:9000/b/k                                           |
| url-malformed    | s3://https://b.s3.amazonaws.com/k                                      |
| url-malformed    | https://s3-accelerate.amazonaws.com/b                                  |
| url-malformed    | https://a.b.s3-accelerate.amazonaws.com/k                              |
| url-malformed    | https://b.s3.amazonaws.com/a b?X-Amz-Signature=0                       |
| url-malformed    | s3://                                                                  |
| url-malformed    | s3:///k                                                                |
| url-malformed    | s3://b                                                                 |
| url-malformed    | s3://b/                                                                |
| url-malformed    | s3://user@b/k                                                          |
| url-encoding     | https://b.s3.amazonaws.com/%zz                                         |
| url-encoding     | https://b.s3.amazonaws.com/100%                                        |
| url-encoding     | https://b.s3.amazonaws.com/%FF                                         |
| url-encoding     | https://b.s3.amazonaws.com/%ED%A0%80                                   |
| url-encoding     | https://b.s3.amazonaws.com/k?versionId=%zz                             |
| url-query        | https://b.s3.amazonaws.com/k?a=1;versionId=v                           |
| url-query        | https://b.s3.amazonaws.com/k?a=1&amp;versionId=v                       |
| url-query        | https://b.s3.amazonaws.com/k?a=1?versionId=v                           |
| url-query        | https://b.s3.amazonaws.com/k?a=1%26versionId=v                         |
| url-query        | https://b.s3.amazonaws.com/k?versionid=v                               |
| url-query        | https://b.s3.amazonaws.com/k?VersionId=v                               |
| url-query        | https://b.s3.amazonaws.com/k?version-id=v                              |
| url-query        | https://b.s3.amazonaws.com/k? versionId=v                              |
| url-query        | https://b.s3.amazonaws.com/k?versionId=v&versionId=w                   |
| url-query        | https://b.s3.amazonaws.com/k?versionId=v&versionid=v                   |
| url-query        | https://b.s3.amazonaws.com/k?x-amz-version-id=v                        |
| url-query        | https://b.s3.amazonaws.com/k?partNumber=1                              |
| url-not-s3       | file:///etc/passwd                                                     |
| url-not-s3       | ftp://b.s3.amazonaws.com/k                                             |
| url-not-s3       | https://example.com/k                                                  |
| url-not-s3       | https://example.com/k?X-Amz-Signature=0                                |
| url-not-s3       | https://amazonaws.com/b/k                                              |
| url-not-s3       | https://ec2.us-west-2.amazonaws.com/b/k                                |
| url-not-s3       | https://1.s3-control.us-west-2.amazonaws.com/k                         |
| url-not-s3       | https://bs3.amazonaws.com/k                                            |
| url-not-s3       | https://s3.amazonaws.com.evil.com/b/k                                  |
| url-not-s3       | https://evil.com/s3.amazonaws.com/b/k                                  |
| url-not-s3       | https://b.s3.amazonaws.com@evil.com/k                                  |
| url-not-s3       | https://user:pw@b.s3.amazonaws.com/k                                   |
| url-not-s3       | https://evil.com\@b.s3.amazonaws.com/k                                 |
| url-not-s3       | https://b.s3.amazonaws.com\.evil.com/k                                 |
| url-not-s3       | https://evil.com\.s3.amazonaws.com/k                                   |
| url-not-s3       | https://b.s3.amazonaws.com:8443/k                                      |
| url-not-s3       | https://b.s3.amazonaws.com:80/k                                        |
| url-not-s3       | https://b.s3.amazonaws.com:x/k                                         |
| url-not-s3       | https://b.s3.amazonaws.com./k                                          |
| url-not-s3       | https://.s3.amazonaws.com/k                                            |
| url-not-s3       | https://a..s3.amazonaws.com/k                                          |
| url-not-s3       | https://b.s3%2Eamazonaws.com/k                                         |
| url-not-s3       | https://b.s3.amazonaws。com/k                                           |
| url-not-s3       | https://é.s3.amazonaws.com/k                                           |
| url-not-s3       | https://b s3.amazonaws.com/k                                           |
| url-not-s3       | https://s3xamazonaws.com/b/k                                           |
| url-not-s3       | https://b.s3.dualstack.amazonaws.com/k                                 |
| url-not-s3       | https://b.s3.dualstack-us-west-2.amazonaws.com/k                       |
| url-not-s3       | https://b.s3.us-west-2.amazonaws.com.cn/k                              |
| url-not-s3       | https://b.s3.cn-north-1.amazonaws.com/k                                |
| url-not-s3       | https://b.s3.amazonaws.com.cn/k                                        |
| url-not-s3       | https://b.s3.eusc-de-east-1.amazonaws.com/k                            |
| url-not-s3       | https://b.s3.us-west-2.amazonaws.eu/k                                  |
| url-not-s3       | https://b.s3.amazonaws.eu/k                                            |
| url-not-s3       | https://s3-accelerate.amazonaws.eu/b/k                                 |
| url-not-s3       | https://b.s3.us-iso-east-1.sc2s.sgov.gov/k                             |
| url-not-s3       | https://b.s3.us-isob-east-1.c2s.ic.gov/k                               |
| url-not-s3       | https://b.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/k                 |
| url-not-s3       | https://vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/b/k                 |
| url-not-s3       | https://control.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/b/k         |
| url-not-s3       | https://bucket.vpce-1a-2b.ec2.us-east-1.vpce.amazonaws.com/b/k         |
| url-not-s3       | https://bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com.cn/b/k       |
| url-not-s3       | https://bucket.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com.evil.com/b/k |
| url-not-s3       | http://169.254.169.254/latest/meta-data                                |
| url-not-s3       | http://[fd00:ec2::254]/latest/meta-data                                |
| url-not-s3       | http://localhost:9000/b/k                                              |
| url-website      | http://b.s3-website-us-west-2.amazonaws.com/k                          |
| url-website      | http://b.s3-website.eu-central-1.amazonaws.com/k                       |
| url-website      | http://b.s3-website.cn-north-1.amazonaws.com.cn/k                      |
| url-access-point | https://p-1.s3-accesspoint.us-west-2.amazonaws.com/k                   |
| url-access-point | https://p-1.s3-accesspoint-fips.dualstack.us-west-2.amazonaws.com/k    |
| url-access-point | https://p-1.s3-object-lambda.us-west-2.amazonaws.com/k                 |
| url-access-point | https://p-1.op-1.s3-outposts.us-west-2.amazonaws.com/k                 |
| url-access-point | https://p-1.accesspoint.vpce-1a-2b.s3.us-east-1.vpce.amazonaws.com/k   |
| url-access-point | https://m.accesspoint.s3-global.amazonaws.com/k                        |
| url-access-point | s3://arn:aws:s3:us-west-2:1:accesspoint/p/k                            |
| url-access-point | s3://m.mrap/k                                                          |
| url-express      | https://b--usw2-az1--x-s3.s3express-usw2-az1.us-west-2.amazonaws.com/k |
| url-express      | https://s3express-control.us-west-2.amazonaws.com/b/k                  |
| url-express      | https://b--usw2-az1--x-s3.s3.us-west-2.amazonaws.com/k                 |
| url-express      | https://s3.us-west-2.amazonaws.com/b--usw2-az1--x-s3/k                 |
| url-express      | s3://b--usw2-az1--x-s3/k                                               |

Not in the table: anything but text is `url-not-text`. A control character, or white space at an end, is `url-malformed`
(urlsplit drops both silently, and then names another object). A lone surrogate in a key is `url-encoding`.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

from daemon.core.errors import UrlRefused
from daemon.core.model import EndpointVariant, ObjectRef

# Host labels of the service: between the bucket and the region.
_HOST_LABELS = {
    EndpointVariant.STANDARD: "s3",
    EndpointVariant.DUALSTACK: "s3.dualstack",
    EndpointVariant.FIPS: "s3-fips",
    EndpointVariant.FIPS_DUALSTACK: "s3-fips.dualstack",
    EndpointVariant.ACCELERATE: "s3-accelerate",
    EndpointVariant.ACCELERATE_DUALSTACK: "s3-accelerate.dualstack",
}
_VARIANTS = {label: variant for variant, label in _HOST_LABELS.items()} | {"s3-external-1": EndpointVariant.STANDARD}
_ACCELERATED = (EndpointVariant.ACCELERATE, EndpointVariant.ACCELERATE_DUALSTACK)

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{0,5}))?")
_BUCKET = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,255}")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9/_.~-]*")  # needs no encoding: RFC 3986 2.3
_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_PRINTABLE_ASCII = re.compile(r"[!-~]+")
_REGION = r"[a-z]{2,4} (?:-[a-z]+)+ -[0-9]{1,2}"
# The domain of each partition, by the prefix of its regions; "" is that of all other regions.
# Source: `dnsSuffix` and `regionRegex` in botocore's data/partitions.json (1.44.5); its test holds this table to it.
_DOMAINS = {
    "": "amazonaws.com",
    "cn-": "amazonaws.com.cn",
    "eusc-": "amazonaws.eu",
    "us-iso-": "c2s.ic.gov",
    "us-isob-": "sc2s.sgov.gov",
    "eu-isoe-": "cloud.adc-e.uk",
    "us-isof-": "csp.hci.ic.gov",
}
_DOMAIN = "|".join(re.escape(domain) for domain in sorted(_DOMAINS.values(), reverse=True))
_S3_HOST = re.compile(
    rf"""
    (?:(?P<bucket> [a-z0-9_-]{{1,63}} (?:\.[a-z0-9_-]{{1,63}})* )\.)?    # greedy: the service is read from the right
    (?P<service>
        (?:
            (?P<label>
                s3 (?:-fips)? (?:\.dualstack)?
              | s3-website
              | s3-(?:accesspoint|object-lambda|outposts) (?:-fips)? (?:\.dualstack)?
              | s3express-[a-z0-9-]+ (?:\.dualstack)?
            )
            (?: \. | (?<!dualstack)- )                               # s3-us-west-2: the older spelling
            (?P<region> {_REGION} )
          | (?P<worldwide> s3 | s3-external-1 | s3-accelerate (?:\.dualstack)? | accesspoint\.s3-global )
        )
        \. (?P<domain> {_DOMAIN} )
      | (?P<vpc_kind> bucket | accesspoint )
        \. (?P<vpc_endpoint> vpce-[a-z0-9-]{{1,58}} )
        \. s3 \. (?P<vpc_region> {_REGION} ) \. vpce \. (?P<vpc_domain> {_DOMAIN} )
    )
    """,
    re.VERBOSE,
)
_HOST_BUCKET = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_ADDRESS = re.compile(r"\[.*|[0-9.]+")  # an IP address has no names below it
_DEFAULT_PORTS = {"https": 443, "http": 80}
# Names of parameters after any separator.
_NAMES_VERSION = re.compile(r"(?:^|[?&;\s])(?:amp;)?(?:x-amz-)?version[-_]?id\s*(?:=|$)", re.IGNORECASE)
_NAMES_PART = re.compile(r"(?:^|[?&;\s])(?:amp;)?part[-_]?number\s*(?:=|$)", re.IGNORECASE)

_EXPRESS_ENDINGS = ("--x-s3", "--xa-s3")
_ACCESS_POINT_ENDINGS = (".mrap", "--op-s3")

_WANTED = "an S3 URL looks like https://BUCKET.s3.REGION.amazonaws.com/KEY or s3://BUCKET/KEY"
_HINTS = {
    "url-not-text": _WANTED,
    "url-malformed": _WANTED,
    "url-encoding": "write the key as UTF-8, percent-encoded once ('%' itself is %25)",
    "url-query": "name one version as ?versionId=VERSION, with & between parameters, and no part of an object",
    "url-not-s3": "only S3 is asked for images: " + _WANTED + "; for the host of an S3-compatible store, set --endpoint-url",
    "url-website": "website hosts are not supported: use the bucket's own host, https://BUCKET.s3.REGION.amazonaws.com/KEY",
    "url-access-point": "access points are not supported: use the bucket's own host, https://BUCKET.s3.REGION.amazonaws.com/KEY",
    "url-express": "S3 Express directory buckets are not supported: copy the images to a general purpose bucket",
}


_BUCKET_ALONE = "after s3:// stands the bucket's name, not a host: s3://BUCKET/KEY"


class _HostParts(NamedTuple):
    """Meaning of scheme and authority. `service`: the host without bucket; `bucket` None: in the path."""

    service: str
    bucket: str | None = None
    region: str | None = None
    variant: EndpointVariant = EndpointVariant.STANDARD
    vpc_endpoint: str | None = None


def parse_s3_url(url: object, endpoint: str | None = None) -> ObjectRef:
    """The object that `url` names, by the tables above. Raises UrlRefused.

    `endpoint`: `scheme://host[:port]`.
    """
    if not isinstance(url, str):
        raise _refused("url-not-text", f"the entry is {type(url).__name__}, not text")
    if not url.isprintable() and _CONTROL.search(url):  # isprintable first: fast, and nearly every URL passes
        raise _refused("url-malformed", "the URL holds a control character")
    if url != url.strip():
        raise _refused("url-malformed", "the URL begins or ends with white space")
    split = _URL.fullmatch(url)
    if split is None:
        raise _refused("url-malformed", "the entry is not a URL: it does not begin with https://")
    scheme, authority, path, query = split.groups()
    if scheme in ("s3", "S3"):
        return _parse_s3_uri(url[len("s3://") :], endpoint)
    parts = _parse_host(scheme, authority, endpoint)
    bucket = parts.bucket
    if bucket is None:
        first, _, raw_key = path[1:].partition("/")
        bucket = _path_bucket(first, parts.service)
    else:
        raw_key = path[1:]
    key = _decoded(raw_key, parts.service)
    if not key:
        raise _refused("url-malformed", f"the URL names bucket {bucket!r} and no key in it")
    if query is None:
        return ObjectRef(bucket, key, None, parts.region, parts.variant, None, parts.vpc_endpoint)
    version_id, presigned = _read_query(query, parts.service)
    presigned_url = None
    if presigned:
        presigned_url = url.partition("#")[0]
        if not _PRINTABLE_ASCII.fullmatch(presigned_url):  # a space would end the request line early
            raise _refused("url-malformed", f"the presigned URL at {parts.service!r} is not percent-encoded")
    return ObjectRef(bucket, key, version_id, parts.region, parts.variant, presigned_url, parts.vpc_endpoint)


def build_s3_url(ref: ObjectRef, *, region: str | None = None, endpoint: str | None = None) -> str:
    """The URL of a request for `ref`; a presigned URL unchanged. `region` overrides the ref's.

    Encoded as SigV4 canonicalises for S3: all but A-Z a-z 0-9 - . _ ~ and / as upper-case %XX, nothing normalised.
    """
    if ref.presigned_url is not None:
        return ref.presigned_url
    return bucket_url(ref, region=region, endpoint=endpoint) + object_path(ref)


def object_path(ref: ObjectRef) -> str:
    """The part of a request's URL after the bucket, encoded as in build_s3_url."""
    path = ref.key if _PLAIN_KEY.fullmatch(ref.key) else quote(ref.key, safe="/")
    return f"{path}?versionId={quote(ref.version_id, safe='')}" if ref.version_id else path


def bucket_url(ref: ObjectRef, *, region: str | None = None, endpoint: str | None = None, bucket_in_host: bool = False) -> str:
    """The part of a request's URL before the object: the same for a bucket, variant and region.

    `bucket_in_host`: the endpoint refuses path style.
    """
    if endpoint is not None:
        if bucket_in_host and _DNS_LABEL.fullmatch(ref.bucket):
            return endpoint.rstrip("/").replace("://", f"://{ref.bucket}.", 1) + "/"
        return f"{endpoint.rstrip('/')}/{ref.bucket}/"
    if ref.vpc_endpoint is not None:
        return f"https://{_vpc_host(ref)}/{ref.bucket}/"
    # The certificate for *.s3.amazonaws.com covers one label: a bucket with a dot, or no valid label, goes into the path.
    if _DNS_LABEL.fullmatch(ref.bucket):
        return f"https://{ref.bucket}.{s3_host(ref.variant, region or ref.region)}/"
    # Transfer Acceleration has no path style; the bucket's ordinary host gives the same object.
    variant = EndpointVariant.STANDARD if ref.variant in _ACCELERATED else ref.variant
    return f"https://{s3_host(variant, region or ref.region)}/{ref.bucket}/"


def origin_of(ref: ObjectRef, *, region: str | None = None, endpoint: str | None = None) -> str:
    """`scheme://host[:port]` of a request for `ref`, without its bucket: the unit of an outage."""
    if ref.presigned_url is not None:
        split = _URL.fullmatch(ref.presigned_url)
        assert split is not None  # parse_s3_url made it
        scheme, host, port = _host_and_port(split[1], split[2])
        found = _S3_HOST.fullmatch(host)
        endpoint_parts = _parse_endpoint_host(host, port, endpoint) if endpoint is not None else None
        service = found["service"] if found else endpoint_parts.service if endpoint_parts else host
        return f"{scheme}://{service}" + (f":{port}" if port is not None else "")
    if endpoint is not None:
        return endpoint.rstrip("/")
    if ref.vpc_endpoint is not None:
        return f"https://{_vpc_host(ref)}"
    return "https://" + s3_host(ref.variant, region or ref.region)


def s3_host(variant: EndpointVariant, region: str | None) -> str:
    """AWS's host for a variant and a region, without a bucket.

    Acceleration has no regions. A variant that needs one and gets none takes that of the global host, us-east-1.
    """
    if variant in _ACCELERATED or (variant is EndpointVariant.STANDARD and region is None):
        return f"{_HOST_LABELS[variant]}.{_domain(None)}"
    region = region or "us-east-1"
    return f"{_HOST_LABELS[variant]}.{region}.{_domain(region)}"


def _vpc_host(ref: ObjectRef) -> str:
    """A VPC endpoint's host, path style. It is in one region, whatever the bucket's region."""
    return f"bucket.{ref.vpc_endpoint}.s3.{ref.region}.vpce.{_domain(ref.region)}"


@lru_cache(maxsize=1024)
def _domain(region: str | None) -> str:
    begin = max((begin for begin in _DOMAINS if region is not None and region.startswith(begin)), key=len, default="")
    return _DOMAINS[begin]


def _parse_s3_uri(rest: str, endpoint: str | None) -> ObjectRef:
    """The object of `s3://` and `rest`, literally: `?`, `#` and `%` are part of the key."""
    if rest.startswith("arn:"):
        raise _refused("url-access-point", "the s3:// URL names an ARN, not a bucket")
    bucket, _, key = rest.partition("/")
    if _looks_like_host(bucket, endpoint):
        raise _refused("url-malformed", f"the s3:// URL begins with the host {_cut(bucket)}", hint=_BUCKET_ALONE)
    _checked_bucket(bucket, "the s3:// URL")
    if not key:
        raise _refused("url-malformed", f"the URL names bucket {bucket!r} and no key in it")
    if not key.isascii():
        _utf8(key.encode("utf-8", "surrogatepass"), f"bucket {bucket!r}")
    return ObjectRef(bucket, key)


@lru_cache(maxsize=1024)
def _looks_like_host(bucket: str, endpoint: str | None) -> bool:
    """Whether `bucket` is really a host: S3's, the endpoint's, or any with a port.

    The message shows it, so nothing with an `@` is taken for one.
    """
    if re.fullmatch(r"https?:|[A-Za-z0-9.-]+:[0-9]{1,5}", bucket):
        return True
    host = bucket.lower()
    if not _HOST_BUCKET.fullmatch(host):
        return False
    if _S3_HOST.fullmatch(host):
        return True
    endpoint_host = _endpoint_address(endpoint)[0] if endpoint is not None else ""
    return "." in endpoint_host and f".{host}".endswith(f".{endpoint_host}")


@lru_cache(maxsize=1024)  # a million URLs have a handful of hosts
def _parse_host(scheme: str, authority: str, endpoint: str | None) -> _HostParts:
    """The parts of an S3 host. The whole authority must be one: `s3.amazonaws.com.evil.com` is not."""
    scheme, host, port = _host_and_port(scheme, authority)
    found = _S3_HOST.fullmatch(host)
    if found and port is None and _ends_as_its_region(found):
        return _parse_aws_host(found)
    if endpoint is not None and (parts := _parse_endpoint_host(host, port, endpoint)):
        return parts
    raise _refused("url-not-s3", f"{_cut(authority)} is not an S3 host")


def _ends_as_its_region(found: re.Match[str]) -> bool:
    return (found["domain"] or found["vpc_domain"]) == _domain(found["region"] or found["vpc_region"])


def _parse_endpoint_host(host: str, port: int | None, endpoint: str) -> _HostParts | None:
    """The parts of the endpoint's host, perhaps with a bucket before it; None: another host."""
    endpoint_host, endpoint_port = _endpoint_address(endpoint)
    if port != endpoint_port:
        return None
    if host == endpoint_host:
        return _HostParts(host)
    bucket = host.removesuffix(f".{endpoint_host}")
    if bucket == host or _ADDRESS.fullmatch(endpoint_host) or not _HOST_BUCKET.fullmatch(bucket):
        return None
    return _HostParts(endpoint_host, _checked_bucket(bucket, f"the host at {endpoint_host!r}"))


def _parse_aws_host(found: re.Match[str]) -> _HostParts:
    service, bucket = found["service"], found["bucket"]
    if found["vpc_kind"] is not None:
        if found["vpc_kind"] == "accesspoint":
            raise _refused("url-access-point", f"{service!r} serves access points")
        if bucket is not None:
            _checked_bucket(bucket, f"the host at {service!r}")
        return _HostParts(service, bucket, found["vpc_region"], vpc_endpoint=found["vpc_endpoint"])
    label = found["label"] or found["worldwide"]
    variant = _VARIANTS.get(label)
    if variant is None:
        if label == "s3-website":
            raise _refused("url-website", f"{service!r} serves websites")
        if label.startswith("s3express-"):
            raise _refused("url-express", f"{service!r} serves S3 Express directory buckets")
        raise _refused("url-access-point", f"{service!r} serves access points")
    if bucket is not None:
        _checked_bucket(bucket, f"the host at {service!r}")
    if variant in _ACCELERATED and bucket is not None and not _DNS_LABEL.fullmatch(bucket):
        raise _refused("url-malformed", f"{service!r} takes the bucket as one label before it, without dots")
    region = "us-east-1" if label == "s3-external-1" else found["region"]
    return _HostParts(service, bucket, region, variant)


def _host_and_port(scheme: str, authority: str) -> tuple[str, str, int | None]:
    """Scheme, host and port in one form: lower case, None for the scheme's own port. Raises UrlRefused."""
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise _refused("url-not-s3", f"the URL's scheme is {_cut(scheme)}, not https, http or s3")
    if not authority:
        raise _refused("url-malformed", "the URL has no host")
    # lower() only ASCII: that of the Kelvin sign is a plain k.
    plain = _AUTHORITY.fullmatch(authority.lower()) if authority.isascii() else None
    if plain is None or len(plain[1]) > 253:
        # Before an @ there may be a password, and it may hold a colon.
        shown = authority.rpartition("@")[2].partition(":")[0]
        raise _refused("url-not-s3", f"{_cut(shown)}, with what stands beside it, is not the plain name of a host")
    port = int(plain[2]) if plain[2] else _DEFAULT_PORTS[scheme]
    return scheme, plain[1], None if port == _DEFAULT_PORTS[scheme] else port


@lru_cache(maxsize=8)
def _endpoint_address(endpoint: str) -> tuple[str, int | None]:
    scheme, _, authority = endpoint.rstrip("/").partition("://")
    return _host_and_port(scheme, authority)[1:]


@lru_cache(maxsize=1024)
def _path_bucket(first: str, host: str) -> str:
    return _checked_bucket(_decoded(first, host), f"the path at {host!r}")


def _checked_bucket(bucket: str, where: str) -> str:
    if not _BUCKET.fullmatch(bucket):
        raise _refused("url-malformed", f"{where} begins with no bucket name")
    if bucket.endswith(_EXPRESS_ENDINGS):
        raise _refused("url-express", f"{bucket!r} is an S3 Express directory bucket")
    if bucket.endswith(_ACCESS_POINT_ENDINGS):
        raise _refused("url-access-point", f"{bucket!r} is an access point, not a bucket")
    return bucket


def _read_query(query: str, host: str) -> tuple[str | None, bool]:
    """The version in the query, and whether the URL is presigned: then S3 judges the rest of it."""
    values: dict[str, list[str]] = {}
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        values.setdefault(unquote(name), []).append(value)
    presigned = "X-Amz-Signature" in values or "X-Amz-Algorithm" in values or {"Signature", "AWSAccessKeyId"} <= values.keys()
    versions = values.get("versionId", [""])
    if not presigned:
        _require_plain_query(query, values, host)
    return _decoded(versions[0], host) or None, presigned


def _require_plain_query(query: str, values: Mapping[str, list[str]], host: str) -> None:
    """Raises UrlRefused where S3 would send another version, or more, than the query seems to name."""
    versions_read = values.get("versionId", [])
    plain = unquote(unquote(query))
    if len(_NAMES_VERSION.findall(plain)) != len(versions_read):
        raise _refused("url-query", f"a URL at {host!r} names a version in a form that S3 does not read")
    if len(set(versions_read)) > 1:
        raise _refused("url-query", f"a URL at {host!r} names more than one version")
    if _NAMES_PART.search(plain):
        raise _refused("url-query", f"a URL at {host!r} asks for a part of an object")


def _decoded(text: str, host: str) -> str:
    """`text`, percent-decoded once. Raises UrlRefused for an invalid escape or invalid UTF-8."""
    if "%" not in text:
        return text if text.isascii() else _utf8(text.encode("utf-8", "surrogatepass"), repr(host))
    if _BAD_ESCAPE.search(text):
        raise _refused("url-encoding", f"a URL at {host!r} holds a '%' without two hexadecimal digits")
    return _utf8(unquote_to_bytes(text.encode("utf-8", "surrogatepass")), repr(host))


def _utf8(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Not chained: a UnicodeDecodeError holds the text.
        raise _refused("url-encoding", f"a URL at {where} is not UTF-8") from None


def _cut(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:80] + "...")


def _refused(code: str, message: str, *, hint: str | None = None) -> UrlRefused:
    return UrlRefused(message, code=code, hint=hint or _HINTS[code])
