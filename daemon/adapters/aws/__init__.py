"""AWS credentials from boto3's chain, and settings from the AWS profile."""
