#!/usr/bin/env bash
# An ETag that is the MD5 of an object does not prove that the object is the file that was uploaded.
#
# One would guess: a store either decodes `Content-Encoding: aws-chunked`, the way in which AWS's SDKs stream an upload, or
# refuses it. boto3 uploads so over https since 1.36 (January 2025), without being asked to.
# What happens (s3rver 3.7.1, Node 20): it answers 200 and stores the chunk headers and the trailer in the object. Its ETag and
# Content-Length are those of the framed bytes, so every check of a download passes, and the image is none.
# For actorsync: such an image is proved by MD5 and kept, as it is what the store has; `image.suspect` says what it holds.
set -euo pipefail

folder=$(mktemp -d)
server=
trap '[[ -z $server ]] || kill "$server"; rm -rf "$folder"' EXIT
cd "$folder"
npm install --silent --no-audit --no-fund --ignore-scripts s3rver@3.7.1 >/dev/null
node node_modules/s3rver/bin/s3rver.js -d . -a 127.0.0.1 -p 0 --configure-bucket images >log 2>&1 &
server=$!
for _ in {1..100}; do grep -q listening log && break; sleep 0.1; done
url=$(sed -n 's/.*listening on \([0-9.:]*\).*/http:\/\/\1/p' log)/images/a.png

signed() { # s3rver looks for a signature and does not verify it
  curl -sS -H 'Authorization: AWS4-HMAC-SHA256 Credential=S3RVER/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0' \
    -H "x-amz-date: $(date -u +%Y%m%dT%H%M%SZ)" "$@"
}
framed=$'5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n'
status=$(printf %s "$framed" | signed -o /dev/null -w '%{http_code}' -X PUT --data-binary @- -H 'Content-Encoding: aws-chunked' \
  -H 'x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER' -H 'x-amz-decoded-content-length: 5' "$url")
signed -D head -o body -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' "$url"
etag=$(sed -n 's/^etag: "\([0-9a-f]*\)".*/\1/Ip' head)

echo "s3rver $(node -p 'require("./node_modules/s3rver/package.json").version'), node $(node --version): PUT of 5 bytes answered $status"
echo "GET gives $(stat -c %s body) bytes, ETag $etag, their MD5 $(md5sum <body | cut -d' ' -f1)"
[[ $status = 200 && $(<body) = "$(printf %s "$framed")" && $etag = "$(md5sum <body | cut -d' ' -f1)" ]]
