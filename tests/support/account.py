"""An endpoint with a pair of keys that the tests made up."""

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"  # AWS's own example pair: as long as real ones
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


@dataclass(frozen=True, slots=True)
class Account:
    """One pair of keys at one endpoint."""

    endpoint_url: str
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    region: str = "us-west-1"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that give the product this account."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint_url,
            "AWS_ACCESS_KEY": self.access_key,
            "AWS_ACCESS_SECRET": self.secret_key,
        }

    def client(self) -> Any:
        """A boto3 client of this process."""
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def presign(self, bucket: str, key: str, *, version_id: str | None = None, expires_seconds: int = 3600) -> str:
        """A URL that carries its own signature."""
        params = {"Bucket": bucket, "Key": key} | ({"VersionId": version_id} if version_id else {})
        url: str = self.client().generate_presigned_url("get_object", Params=params, ExpiresIn=expires_seconds)
        return url
