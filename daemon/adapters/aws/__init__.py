"""botocore's chain of credentials, and the AWS profile: what configures the tools of AWS counts here too."""
