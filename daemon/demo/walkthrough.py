"""The demo as a whole: its folder, its server, and what to try next."""

import contextlib
import errno
from dataclasses import dataclass, field
from pathlib import Path

from daemon.core.errors import ConfigError, DiskFull
from daemon.demo.actors import ACTORS, BUCKET, IMAGES_PER_ACTOR, make_actors
from daemon.demo.folder import FOLDER, is_whole, make
from daemon.demo.server import DemoServer, find_rclone, serve


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo run needs. `fresh`: made in this run, so nothing was downloaded before."""

    folder: Path
    fresh: bool
    rclone: str = field(repr=False)

    @property
    def bucket_tree(self) -> Path:
        return self.folder / "s3"

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    def server(self) -> contextlib.AbstractContextManager[DemoServer]:
        """The S3 server of the bucket, for a with statement. Raises ConfigError."""
        return serve(self.rclone, self.bucket_tree)

    def opening_text(self) -> str:
        """What was made, printed before the sync."""
        if not self.fresh:
            return (
                f"Demo: an earlier run made everything in {FOLDER}/. Images that are present are skipped without any "
                f"request: this is what that looks like.\n"
                f"To start over: rm -r {FOLDER}\n"
            )
        return (
            f"Demo: made a bucket of {ACTORS} actors with {IMAGES_PER_ACTOR} images each in {FOLDER}/s3. A real S3 server "
            f"(rclone), on this machine only, serves it while this runs.\n"
            f"What follows is the ordinary sync; the images land in {FOLDER}/data/actors/*/training_data/.\n"
        )

    def closing_text(self, once: bool) -> str:
        """What to do next: printed after a --once, or when the daemon begins to watch."""
        if once:
            again = "Run it again to see what skipping looks like, or" if self.fresh else "Run it"
            return f"Demo: {again} without --once to see it follow changes. To start over: rm -r {FOLDER}\n"
        actor = make_actors(1)[0].name
        training_data = f"{FOLDER}/data/actors/{actor}/training_data"
        bucket_folder = f"{FOLDER}/s3/{BUCKET}/actors/{actor}"
        return (
            f"Demo: watching {FOLDER}/data now. Try these in another terminal, in this directory:\n"
            f"\n"
            f"  an image is lost, and its manifest is saved again: the image comes back\n"
            f"    rm {training_data}/{actor}_0.png; echo >> {training_data}/response.json\n"
            f"\n"
            f"  the bucket and the manifest gain an image: that one is downloaded, the others are skipped\n"
            f"    cp {bucket_folder}/{actor}_0.png {bucket_folder}/{actor}_new.png\n"
            f"    sed -i 's|^\\(.*\\)_0.png\"|\\1_new.png\",\\n&|' {training_data}/response.json\n"
            f"\n"
            f"Ctrl-C ends the daemon and the S3 server. To start over: rm -r {FOLDER}\n"
        )


def prepare(working_dir: Path, *, actors: int = ACTORS) -> Demo:
    """The demo in `demo-data/` of the working directory; makes it where there is none.

    Raises ConfigError when rclone is missing, when something else has that name, or when it cannot be written; DiskFull.
    """
    rclone = find_rclone()  # first: without it the images are of no use
    folder = working_dir.absolute() / FOLDER
    try:
        fresh = not is_whole(folder) and make(folder, actors)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the demo cannot be written to {folder}: {error.strerror}", hint="it needs about 300 MB") from error
        raise ConfigError(
            f"the demo cannot be written to {folder}: {error}",
            hint="run it in another directory",
        ) from error
    return Demo(folder, fresh, rclone)
