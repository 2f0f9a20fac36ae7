"""AWS credentials and settings from botocore's credential chain and from the AWS profile."""
