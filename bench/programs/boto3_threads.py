"""What users had before: thread pools of boto3, one for the actors and in it one for the images of each.

A program of its own, started with the name of its job file. In its favour: one client for all
threads with a connection for each, get_object (download_file asks HEAD first and starts threads of its own), pieces of
256 KiB, checksums only where S3 demands them. Skips what exists, as the old script did, truncated or not.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import boto3
from botocore.config import Config

PIECE_BYTES = 256 * 1024


def fetch(client: Any, bucket: str, key: str, place: str) -> None:
    if os.path.exists(place):
        return
    body = client.get_object(Bucket=bucket, Key=key)["Body"]
    with open(place, "wb", buffering=0) as file:
        for piece in body.iter_chunks(PIECE_BYTES):
            file.write(piece)


def sync_actor(client: Any, job: dict[str, Any], images: list[tuple[str, str]]) -> None:
    with ThreadPoolExecutor(job["workers"]) as pool:
        for fetched in [pool.submit(fetch, client, job["bucket"], *image) for image in images]:
            fetched.result()


def main(name: str) -> None:
    with open(name) as file:
        job = json.load(file)
    client = boto3.client(
        "s3",
        endpoint_url=job["endpoint_url"],
        config=Config(
            max_pool_connections=job["actors"] * job["workers"],
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path"},
        ),
    )
    actors = [list(images) for _, images in groupby(job["images"], key=lambda image: os.path.dirname(image[1]))]
    with ThreadPoolExecutor(job["actors"]) as pool:
        for synced in [pool.submit(sync_actor, client, job, images) for images in actors]:
            synced.result()


main(*sys.argv[1:])
