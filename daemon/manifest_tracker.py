"""From hints to actors that are due: an event is only a hint, what the manifests say is the truth."""

from collections.abc import Callable, Iterable

from daemon.core.debounce import Debouncer
from daemon.core.errors import ManifestMissing, ManifestRejected
from daemon.core.model import ManifestFingerprint
from daemon.core.ports import ManifestSource, Reading

MOST_EXAMINED_AT_ONCE = 256  # manifests read between two looks at the inbox

NO_MANIFEST = ManifestFingerprint(None, None)


def fingerprint_of(reading: Reading) -> ManifestFingerprint:
    return ManifestFingerprint(reading.stamp, hash(reading.content))  # SipHash, 64 bits, keyed by a secret of this process


class ManifestTracker:
    """What is known of every actor's manifest, and the hints that it may be out of date.

    A hint waits until it is quiet around its actor; then the manifest is read, and only other content than that of the
    last run makes the actor due. A stat that differs (`out_of_date`, over all actors) counts as a hint.
    """

    def __init__(self, manifests: ManifestSource, quiet_seconds: float, max_wait_seconds: float) -> None:
        self._manifests = manifests
        self._hints = Debouncer(quiet_seconds, max_wait_seconds)
        self._ready: list[str] = []
        self._after_run: set[str] = set()
        self._seen: dict[str, ManifestFingerprint] = {}

    def hint(self, actor: str, now: float) -> None:
        """The actor's manifest may have changed."""
        self._hints.touch(actor, now)

    def saw(self, actor: str, seen: ManifestFingerprint) -> None:
        """A run of the actor, which ended, read this."""
        self._seen[actor] = seen
        if actor in self._after_run:
            self._after_run.discard(actor)
            self._ready.append(actor)

    def forget(self, actor: str) -> None:
        self._seen.pop(actor, None)
        self._after_run.discard(actor)

    def settle(self, now: float, in_run: Callable[[str], bool]) -> list[str]:
        """The actors that are due because their manifest has other content than their last run saw.

        One that is in a run is looked at when that has ended: it may see the change itself.
        """
        self._ready.extend(self._hints.due(now))
        examined, self._ready = self._ready[:MOST_EXAMINED_AT_ONCE], self._ready[MOST_EXAMINED_AT_ONCE:]
        self._after_run.update(filter(in_run, examined))
        return [actor for actor in examined if not in_run(actor) and self._differs(actor)]

    def out_of_date(self, actors: Iterable[str]) -> list[str]:
        """Those whose response.json has another stat than their last run saw. Waits without holding the hub."""
        known = [actor for actor in actors if actor in self._seen]
        stamps = self._manifests.stamps(known)
        return [a for a, stamp in zip(known, stamps, strict=True) if (s := self._seen.get(a)) and s.stamp != stamp]

    def set_times(self, quiet_seconds: float, max_wait_seconds: float) -> None:
        """Other times, for hints from now on."""
        self._hints.set_times(quiet_seconds, max_wait_seconds)

    @property
    def are_pending(self) -> bool:
        """There are hints whose actors were not looked at yet."""
        return bool(self._ready or self._hints)

    def wait_seconds(self, now: float) -> float | None:
        return 0.0 if self._ready else self._hints.wait_seconds(now)

    def _differs(self, actor: str) -> bool:
        before = self._seen.get(actor)
        try:
            now = fingerprint_of(self._manifests.read_response(actor))
        except (ManifestMissing, ManifestRejected):
            now = NO_MANIFEST
        if before is None or before.digest != now.digest:
            return True  # the run that this leads to says what it saw
        self._seen[actor] = now
        return False
