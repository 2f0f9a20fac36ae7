"""The program that an obstore user would write for this job. Its argument is the job file."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig


async def fetch_all(job: dict[str, Any]) -> None:
    """Every image of the job to its place, `slots` at once."""
    options: ClientConfig = {"allow_http": True, "timeout": "600s"}
    if job["endpoint_url"].startswith("https:"):
        # rustls refuses a certificate that is its own CA (CaUsedAsEndEntity): a check less for each connection, in its favour
        options["allow_invalid_certificates"] = True
    store = S3Store(
        job["bucket"],
        endpoint=job["endpoint_url"],
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_REGION"],
        virtual_hosted_style_request=False,
        client_options=options,
    )
    images = iter(job["images"])  # shared: each task takes the next one when it is free
    async with asyncio.TaskGroup() as tasks:
        for _ in range(job["slots"]):
            tasks.create_task(fetch(store, images))


async def fetch(store: S3Store, images: Iterator[tuple[str, str]]) -> None:
    for key, place in images:
        answer = await store.get_async(key)
        body = await answer.bytes_async()  # whole in memory, once: its own buffer is written, never copied
        with open(place, "wb", buffering=0) as file:
            file.write(body)


def main(name: str) -> None:
    with open(name) as file:
        job = json.load(file)
    asyncio.run(fetch_all(job))


main(*sys.argv[1:])
