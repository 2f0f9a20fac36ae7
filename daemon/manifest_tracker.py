"""Manifest tracker: turns hints into due actors, after a look at the manifest itself."""

from collections.abc import Callable, Iterable

from daemon.core.debounce import Debouncer
from daemon.core.errors import ManifestMissing, ManifestRejected
from daemon.core.model import ManifestFingerprint
from daemon.core.ports import ManifestSource, Reading

MAX_READ_AT_ONCE = 256  # manifests, before the loop handles events again

NO_MANIFEST = ManifestFingerprint(None, None)


def fingerprint_of(reading: Reading) -> ManifestFingerprint:
    """The stat and the SipHash (64 bits, keyed by a secret of this process) of a manifest."""
    return ManifestFingerprint(reading.stat, hash(reading.content))


class ManifestTracker:
    """The fingerprint of each actor's manifest at its last run, and the hints of changes since.

    A hint waits until its actor is quiet. Then the manifest is read: the actor is due if its content differs from that of the
    last run. A rescan gives hints too, for manifests whose stat differs.
    """

    def __init__(self, manifests: ManifestSource, quiet_seconds: float, max_wait_seconds: float) -> None:
        self._manifests = manifests
        self._hints = Debouncer(quiet_seconds, max_wait_seconds)
        self._to_read: list[str] = []  # actors whose hints are quiet
        self._after_run: set[str] = set()  # actors to read when their run has ended
        self._fingerprints: dict[str, ManifestFingerprint] = {}

    def hint(self, actor: str, now: float) -> None:
        """The actor's manifest may have changed."""
        self._hints.touch(actor, now)

    def record(self, actor: str, fingerprint: ManifestFingerprint) -> None:
        """A run of the actor ended; it read a manifest with this fingerprint."""
        self._fingerprints[actor] = fingerprint
        if actor in self._after_run:
            self._after_run.discard(actor)
            self._to_read.append(actor)

    def forget(self, actor: str) -> None:
        """The actor is gone."""
        self._fingerprints.pop(actor, None)
        self._after_run.discard(actor)

    def due(self, now: float, in_run: Callable[[str], bool]) -> list[str]:
        """The actors whose manifest differs from the one that their last run read.

        An actor that is `in_run` is checked after that run, which may read the change itself.
        """
        self._to_read.extend(self._hints.due(now))
        batch, self._to_read = self._to_read[:MAX_READ_AT_ONCE], self._to_read[MAX_READ_AT_ONCE:]
        self._after_run.update(filter(in_run, batch))
        return [actor for actor in batch if not in_run(actor) and self._differs(actor)]

    def with_changed_stat(self, actors: Iterable[str]) -> list[str]:
        """The actors whose response.json has another stat than at their last run. Does not block the hub."""
        known = [actor for actor in actors if actor in self._fingerprints]
        stats = self._manifests.stats(known)
        # An actor may have been forgotten while the stats were read.
        return [a for a, stat in zip(known, stats, strict=True) if (f := self._fingerprints.get(a)) and f.stat != stat]

    def set_times(self, quiet_seconds: float, max_wait_seconds: float) -> None:
        """Change the times; they apply to hints from now on."""
        self._hints.set_times(quiet_seconds, max_wait_seconds)

    @property
    def has_hints(self) -> bool:
        """Whether there are hints that were not checked yet."""
        return bool(self._to_read or self._hints)

    def wait_seconds(self, now: float) -> float | None:
        """Seconds until a hint is to be checked; None: there is none."""
        return 0.0 if self._to_read else self._hints.wait_seconds(now)

    def _differs(self, actor: str) -> bool:
        """Compare the manifest's content with the last run's; keep the new stat if it is the same."""
        try:
            current = fingerprint_of(self._manifests.read_response(actor))
        except (ManifestMissing, ManifestRejected):
            current = NO_MANIFEST
        last = self._fingerprints.get(actor)
        if last is None or last.digest != current.digest:
            return True  # the run that follows records what it reads
        self._fingerprints[actor] = current
        return False
