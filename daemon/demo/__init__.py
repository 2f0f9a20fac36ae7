"""The demo: a folder of generated images, and a real S3 server on this machine to sync them from."""

from daemon.demo.actors import BUCKET
from daemon.demo.server import DemoServer
from daemon.demo.walkthrough import Demo, prepare

__all__ = ["BUCKET", "Demo", "DemoServer", "prepare"]
