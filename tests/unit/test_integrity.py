import base64
import hashlib
import re
from collections.abc import Mapping

import pytest

from daemon.core.checksums import SIZE_BYTES, new_checksum
from daemon.core.errors import IntegrityMismatch, RequestRefused, ShortBody, StoreError, Treatment, VersionIgnored
from daemon.core.image_signatures import Look
from daemon.core.integrity import Promise, Verifier, md5_of_etag, promise_of, require_version
from daemon.core.model import ObjectHead, Proof
from tests.support.trees import image_bytes

BODY = image_bytes("a", 1032)
MD5 = hashlib.md5(BODY).hexdigest()
EMPTY_MD5 = hashlib.md5(b"").hexdigest()
ERROR_DOCUMENT = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>InternalError</Code><Message>We failed.</Message></Error>'
)


def verified(body: bytes, head: ObjectHead, *, piece_bytes: int = 100, accept_opaque_etags: bool = False) -> Proof:
    verifier = Verifier(head, accept_opaque_etags=accept_opaque_etags)
    for start in range(0, len(body), piece_bytes):
        verifier.update(memoryview(body)[start : start + piece_bytes])
    assert len(body) == verifier.size_bytes
    return verifier.verify()


def head_of(body: bytes, etag: str | None = None, *, encrypted: bool = False) -> ObjectHead:
    return ObjectHead(len(body), etag, encrypted=encrypted)


# --- what an ETag proves -----------------------------------------------------------------------------------------------

ETAGS = {
    "32 hex digits": [
        (MD5, f'"{MD5}"', False),
        (MD5, MD5, False),  # some stores do not quote it
        (MD5, f'"{MD5.upper()}"', False),
    ],
    'ending in "-<parts>"': [
        (None, f'"{MD5}-1"', False),
        (None, f'"{MD5}-10000"', False),
    ],
    "anything, the object under KMS or SSE-C": [
        (None, f'"{MD5}"', True),
        (None, None, True),
    ],
    'anything else, none, weak (W/"...")': [
        (None, None, False),
        (None, "", False),
        (None, '""', False),
        (None, f'W/"{MD5}"', False),
        (None, f'"{MD5[:-1]}"', False),
        (None, f'"{MD5}0"', False),
        (None, f'"{MD5[:-1]}g"', False),
        (None, f'"{MD5}"\n', False),
        (None, f' "{MD5}"', False),
        (None, '"0x8DB5C1"', False),
        (None, f'"{"٣" * 32}"', False),  # digits, but not of hexadecimal ASCII
    ],
}
CASES = [case for cases in ETAGS.values() for case in cases]


def rows_of(documented: object) -> list[str]:
    """The first column of the table in a docstring."""
    rows = re.findall(r"^ *\|([^|]*)\|", documented.__doc__ or "", re.MULTILINE)[2:]
    return [row.strip() for row in rows]


def test_table_is_walked_whole() -> None:
    assert rows_of(md5_of_etag) == list(ETAGS)


@pytest.mark.parametrize(("md5", "etag", "encrypted"), CASES)
def test_etag_is_an_md5_or_proves_nothing(md5: str | None, etag: str | None, encrypted: bool) -> None:
    assert md5 == md5_of_etag(head_of(BODY, etag, encrypted=encrypted))


@pytest.mark.parametrize(("md5", "etag", "encrypted"), CASES)
def test_whole_body_is_proved_by_the_best_that_there_is(md5: str | None, etag: str | None, encrypted: bool) -> None:
    assert (Proof.MD5 if md5 else Proof.LENGTH) == verified(BODY, head_of(BODY, etag, encrypted=encrypted))


# --- which proof is taken -----------------------------------------------------------------------------------------------

DIGESTS = {proof: new_checksum(proof) for proof in SIZE_BYTES}
for _checksum in DIGESTS.values():
    _checksum.update(memoryview(BODY))
TOLD = {proof.value: base64.b64encode(checksum.digest()).decode() for proof, checksum in DIGESTS.items()}
CRCS = ("crc64nvme", "crc32c", "crc32")
ETAG = f'"{MD5}"'


def told(*names: str, **others: str) -> Mapping[str, str]:
    return {**{name: TOLD[name] for name in names}, **others}


PROMISES: dict[str, list[tuple[Proof, Mapping[str, str], str | None]]] = {
    "checksums of the whole object": [
        *[(Proof(name), told(name), None) for name in (*CRCS, "sha1", "sha256")],
        *[(Proof(name), told(name, type="FULL_OBJECT"), ETAG) for name in (*CRCS, "sha1", "sha256")],
        (Proof.CRC64NVME, told("sha256", "sha1", "crc32", "crc32c", "crc64nvme"), ETAG),
        (Proof.CRC32C, told("sha256", "sha1", "crc32", "crc32c"), ETAG),
        (Proof.CRC32, told("sha256", "sha1", "crc32"), ETAG),
        (Proof.SHA1, told("sha256", "sha1"), ETAG),
    ],
    "some whose type is COMPOSITE": [
        (Proof.LENGTH, told("crc32", "sha256", type="COMPOSITE"), f'"{MD5}-2"'),
        (Proof.LENGTH, told("crc32c", type="composite"), None),
        (Proof.MD5, told("crc32c", type="COMPOSITE"), ETAG),
    ],
    'one that ends in "-<parts>", or is malformed': [
        (Proof.LENGTH, {"crc32": TOLD["crc32"] + "-2"}, f'"{MD5}-2"'),
        (Proof.SHA1, {"crc32": TOLD["crc32"] + "-2", "sha1": TOLD["sha1"]}, None),
        (Proof.MD5, {"crc64nvme": ""}, ETAG),
        (Proof.MD5, {"crc64nvme": "?" * 12}, ETAG),
        (Proof.MD5, {"crc64nvme": TOLD["crc32"]}, ETAG),
        (Proof.MD5, {"crc32": TOLD["crc64nvme"]}, ETAG),
        (Proof.LENGTH, {"crc64nvme": TOLD["crc64nvme"][:-1]}, None),
        (Proof.LENGTH, {"crc64nvme": TOLD["crc64nvme"] + ", " + TOLD["crc64nvme"]}, None),
        (Proof.LENGTH, {"md5": TOLD["md5"], "xxhash64": "AAAAAAAAAAA="}, None),
        (Proof.LENGTH, {"crc32": "\u00e9\u00e9\u00e9="}, None),
    ],
    "an ETag that is an MD5 (see md5_of_etag)": [(Proof.MD5, {}, ETAG), (Proof.MD5, {"type": "FULL_OBJECT"}, ETAG)],
    "the same, with `accept_opaque_etags`": [],  # below
    "none of these": [(Proof.LENGTH, {}, None), (Proof.LENGTH, {}, f'"{MD5}-2"')],
}
PROMISED = [row for rows in PROMISES.values() for row in rows]


def test_table_of_proofs_is_walked_whole() -> None:
    assert rows_of(promise_of) == list(PROMISES)


@pytest.mark.parametrize(("proof", "checksums", "etag"), PROMISED, ids=str)
def test_cheapest_sufficient_proof_is_taken(proof: Proof, checksums: Mapping[str, str], etag: str | None) -> None:
    head = ObjectHead(len(BODY), etag, checksums)
    assert Promise(proof, b"" if proof is Proof.LENGTH else DIGESTS[proof].digest()) == promise_of(head)
    assert proof is verified(BODY, head)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("name", [*CRCS, "sha1", "sha256"])
def test_checksum_does_not_depend_on_etag_or_storage(name: str, encrypted: bool) -> None:
    head = ObjectHead(len(BODY), '"opaque"', told(name), encrypted)
    assert Proof(name) is verified(BODY, head, accept_opaque_etags=True)
    with pytest.raises(IntegrityMismatch) as mismatch:
        verified(BODY[:-1] + b"?", head)
    assert (name, 2 * SIZE_BYTES[Proof(name)]) == (mismatch.value.algorithm, len(mismatch.value.digest))
    assert name.upper() in str(mismatch.value)


@pytest.mark.parametrize("name", [*CRCS, "sha1", "sha256"])
def test_checksum_proves_a_body_of_unknown_length(name: str) -> None:
    assert Proof(name) is verified(BODY, ObjectHead(None, None, told(name)))
    with pytest.raises(IntegrityMismatch):
        verified(BODY[:-1], ObjectHead(None, None, told(name)))


def test_checksum_may_be_computed_elsewhere() -> None:
    asked = []

    def elsewhere(proof: Proof, size_bytes: int | None) -> object:
        asked.append((proof, size_bytes))
        return new_checksum(proof)

    for head in (ObjectHead(len(BODY), ETAG), ObjectHead(None, None, told("sha256")), ObjectHead(len(BODY))):
        verifier = Verifier(head, make_checksum=elsewhere)  # type: ignore[arg-type]
        verifier.update(memoryview(BODY))
        verifier.verify()
    assert [(Proof.MD5, len(BODY)), (Proof.SHA256, None)] == asked


# --- bodies that are not taken -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", [None, f'"{MD5}"'], ids=["length", "md5"])
@pytest.mark.parametrize("body", [b"", BODY[:1], BODY[:-1], BODY + b"x", BODY * 2], ids=len)
def test_other_length_is_another_image(etag: str | None, body: bytes) -> None:
    with pytest.raises(ShortBody) as short:
        verified(body, head_of(BODY, etag))
    assert Treatment.TRANSIENT is short.value.treatment
    assert f"{len(body)} bytes came of {len(BODY)}" == str(short.value)


@pytest.mark.parametrize("at", [0, 100, len(BODY) - 1])
def test_one_wrong_byte_is_a_mismatch(at: int) -> None:
    wrong = BODY[:at] + bytes([BODY[at] ^ 1]) + BODY[at + 1 :]
    with pytest.raises(IntegrityMismatch) as mismatch:
        verified(wrong, head_of(BODY, f'"{MD5}"'))
    assert Treatment.MISMATCH is mismatch.value.treatment
    assert hashlib.md5(wrong).hexdigest() == mismatch.value.digest


def test_md5_proves_a_body_of_unknown_length() -> None:
    assert Proof.MD5 is verified(BODY, ObjectHead(None, f'"{MD5}"'))
    with pytest.raises(IntegrityMismatch):
        verified(BODY[:-1], ObjectHead(None, f'"{MD5}"'))


@pytest.mark.parametrize(
    ("head", "accept_opaque_etags"),
    [
        (ObjectHead(None), False),
        (ObjectHead(None, f'"{MD5}-2"'), False),
        (ObjectHead(None, f'"{MD5}"', encrypted=True), False),
        (ObjectHead(None, f'"{MD5}"'), True),
    ],
)
@pytest.mark.parametrize("body", [b"x", BODY, BODY * 3], ids=len)
def test_body_that_nothing_could_prove_is_refused(head: ObjectHead, accept_opaque_etags: bool, body: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        verified(body, head, accept_opaque_etags=accept_opaque_etags)
    assert "unverifiable" == refused.value.code
    assert Treatment.PERMANENT is refused.value.treatment


def test_body_that_nothing_could_prove_is_given_up_early() -> None:
    verifier = Verifier(ObjectHead(None))
    verifier.update(memoryview(bytes(2048)))
    with pytest.raises(RequestRefused):
        verifier.update(memoryview(b"x"))


@pytest.mark.parametrize("etag", [None, f'"{EMPTY_MD5}"'])
def test_empty_object_is_not_begun(etag: str | None) -> None:
    with pytest.raises(RequestRefused) as refused:
        Verifier(head_of(b"", etag))
    assert "object-empty" == refused.value.code
    assert refused.value.hint


def test_empty_object_of_unknown_length_is_refused_at_its_end() -> None:
    with pytest.raises(RequestRefused) as refused:
        verified(b"", ObjectHead(None, f'"{EMPTY_MD5}"'))
    assert "object-empty" == refused.value.code


def test_store_whose_etags_are_no_md5s_is_verified_by_length() -> None:
    assert Proof.LENGTH is verified(BODY, head_of(BODY, f'"{"0" * 32}"'), accept_opaque_etags=True)
    with pytest.raises(ShortBody):
        verified(BODY[:-1], head_of(BODY, f'"{"0" * 32}"'), accept_opaque_etags=True)


# --- another version than was asked for ---------------------------------------------------------------------------------

VERSIONS = [  # as the table in require_version
    ("nothing", None, ["v", "null", None]),
    ("v", "v", ["v"]),
    ("v", "v", ["V", "v, v", "null", "", None]),
    ("null", "null", ["null", "", None]),
    ("null", "null", ["v"]),
]
REFUSED_ROWS = (2, 4)


def test_table_of_versions_is_walked_whole() -> None:
    assert rows_of(require_version) == [row[0] for row in VERSIONS]


@pytest.mark.parametrize(
    ("asked", "told", "refused"),
    [(asked, told, row in REFUSED_ROWS) for row, (_, asked, tolds) in enumerate(VERSIONS) for told in tolds],
)
def test_version_is_refused_unless_confirmed(asked: str | None, told: str | None, refused: bool) -> None:
    head = ObjectHead(len(BODY), ETAG, version_id=told)
    if not refused:
        require_version(asked, head)
        return
    with pytest.raises(VersionIgnored) as ignored:
        require_version(asked, head)
    assert ("version-ignored", Treatment.PERMANENT) == (ignored.value.code, ignored.value.treatment)
    assert "versionId" in ignored.value.hint


def test_version_in_message_is_short_and_printable() -> None:
    with pytest.raises(VersionIgnored) as ignored:
        require_version("a\n" * 1000, ObjectHead(1, version_id="\x1b[31m" * 1000))
    assert str(ignored.value).isprintable()
    assert len(str(ignored.value)) < 1200


# --- an error in a 200 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("piece_bytes", [1, 7, 64, 10_000])
@pytest.mark.parametrize(
    ("treatment", "s3_code", "body"),
    [
        (Treatment.TRANSIENT, "InternalError", ERROR_DOCUMENT),
        (Treatment.THROTTLED, "SlowDown", b"<Error><Code>SlowDown</Code></Error>"),
        (Treatment.THROTTLED, "SlowDown", b"\xef\xbb\xbf <Error>\n  <Code> SlowDown </Code>\n</Error>"),
        (
            Treatment.THROTTLED,
            "SlowDown",
            b'\n\n<?xml version="1.0"?><Error xmlns="x"><RequestId>1</RequestId><Code>SlowDown</Code>',
        ),
        (Treatment.PERMANENT, "AccessDenied", ERROR_DOCUMENT.replace(b"InternalError", b"AccessDenied")),
        (Treatment.PERMANENT, "Unheard", ERROR_DOCUMENT.replace(b"InternalError", b"Unheard")),
    ],
)
def test_error_document_in_a_200_is_the_error(treatment: Treatment, s3_code: str, body: bytes, piece_bytes: int) -> None:
    for head in (head_of(body), ObjectHead(None)):  # of a length, and chunked
        with pytest.raises(StoreError) as error:
            verified(body, head, piece_bytes=piece_bytes)
        assert (treatment, s3_code) == (error.value.treatment, error.value.s3_code)


@pytest.mark.parametrize(
    "body",
    [
        b"<svg><Error><Code>InternalError</Code></Error></svg>",
        b"<Errors><Code>InternalError</Code></Errors>",
        b"<Error>no code</Error>",
        BODY + ERROR_DOCUMENT,
        b"x" + ERROR_DOCUMENT,
    ],
)
def test_other_text_is_an_object_like_any(body: bytes) -> None:
    assert Proof.LENGTH is verified(body, head_of(body))


def test_error_document_that_the_md5_vouches_for_is_the_object() -> None:
    etag = f'"{hashlib.md5(ERROR_DOCUMENT).hexdigest()}"'
    assert Proof.MD5 is verified(ERROR_DOCUMENT, head_of(ERROR_DOCUMENT, etag))


# --- what the bytes look like ------------------------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html><title>Login</title>" + bytes(5000)
PIECES = [1, 7, 64, 4095, 4096, 10_000]


def look_of(body: bytes, head: ObjectHead, name: str = "0.png", piece_bytes: int = 100) -> Look:
    verifier = Verifier(head, name)
    for start in range(0, len(body), piece_bytes):
        verifier.update(memoryview(body)[start : start + piece_bytes])
    verifier.verify()
    return verifier.look


def every_head_of(body: bytes) -> list[ObjectHead]:
    etag = f'"{hashlib.md5(body).hexdigest()}"'
    return [head_of(body), head_of(body, etag), ObjectHead(None, etag)]


@pytest.mark.parametrize("piece_bytes", PIECES)
@pytest.mark.parametrize("size_bytes", [20, 1032, 4096, 4097, 20_000])
def test_whole_image_looks_so_in_pieces_of_any_size(size_bytes: int, piece_bytes: int) -> None:
    body = image_bytes("a", size_bytes)
    for head in every_head_of(body):
        assert Look() == look_of(body, head, piece_bytes=piece_bytes)
        assert Look(mislabelled=True) == look_of(body, head, "0.jpg", piece_bytes)


@pytest.mark.parametrize("piece_bytes", PIECES)
@pytest.mark.parametrize("size_bytes", [20, 1032, 4096, 4097, 20_000])
def test_image_without_its_end_is_kept_and_suspect(size_bytes: int, piece_bytes: int) -> None:
    body = image_bytes("a", size_bytes)[:-1]
    for head in every_head_of(body):
        assert "the PNG has no end (IEND)" == look_of(body, head, piece_bytes=piece_bytes).suspect


@pytest.mark.parametrize("piece_bytes", PIECES)
def test_page_that_only_its_length_vouches_for_is_no_image(piece_bytes: int) -> None:
    head = ObjectHead(len(PAGE), content_type="text/html; charset=\u001b[31m")
    with pytest.raises(RequestRefused) as refused:
        look_of(PAGE, head, piece_bytes=piece_bytes)
    assert ("not-an-image", Treatment.PERMANENT) == (refused.value.code, refused.value.treatment)
    assert "content type 'text/html; charset=\\x1b[31m' and begins with '<!DOCTYPE html><title>Lo'" in refused.value.hint


def test_page_that_s3_vouches_for_is_kept_and_suspect() -> None:
    head = head_of(PAGE, f'"{hashlib.md5(PAGE).hexdigest()}"')
    assert Look(is_image=False, suspect="it does not begin like an image") == look_of(PAGE, head)
