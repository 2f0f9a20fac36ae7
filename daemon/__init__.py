"""actorsync: a local mirror of the training images that a project's JSON manifests list."""

__version__ = "0.1.0"
