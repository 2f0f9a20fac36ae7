"""Samples of response.json: torn, pending, without a list, of the wrong type."""

URLS = ["https://b.s3.us-west-1.amazonaws.com/a/0.png", "https://b.s3.us-west-1.amazonaws.com/a/1.png"]
LIST = b'["https://b.s3.us-west-1.amazonaws.com/a/0.png", "https://b.s3.us-west-1.amazonaws.com/a/1.png"]'
JOB = b'"delayTime": 1721, "executionTime": 48210, "id": "6f1c-u1", "workerId": "kq3v"'
PENDING = [
    b"{" + JOB + b', "status": "IN_QUEUE"}',
    b"{" + JOB + b', "status": "IN_PROGRESS", "output": null}',
    b"{" + JOB + b', "status": "FAILED", "output": {"output": {"error": "out of memory"}}}',
    b'{"status": "IN_PROGRESS", "output": {"output": {"s3_image_urls": null}}}',
    b'{"status": ""}',
]
NO_LIST = [
    b"{}",
    b'{"output": {"output": {}}}',
    b'{"status": "COMPLETED"}',
    b'{"status": "COMPLETED", "output": {"output": {"s3_image_urls": "https://b.s3.amazonaws.com/k"}}}',
    b'{"status": null}',
    b'{"status": 7}',
    b'{"status": ["IN_PROGRESS"]}',
    b'{"S3_IMAGE_URLS": []}',
    b'{"output": {"output": {"output": {"s3_image_urls": []}}}}',
]
WRONG_TYPE = [b"null", b"true", b"7", b'"https://b.s3.amazonaws.com/k"', b"[]", LIST]
TORN = [b"", b"{", LIST[:-9], '{"é'.encode("utf-16"), b"[" * 100_000, b'{"output":' * 100_000 + b"1" + b"}" * 100_000]
