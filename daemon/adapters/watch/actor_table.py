"""The actors of a watcher: which are watched, and which are polled and why."""

from collections import Counter

from daemon.adapters.watch.folder_watches import NOT_POLLED_YET, ActorWatch


class ActorTable:
    """An ActorWatch for each actor, by name."""

    def __init__(self) -> None:
        self._watches: dict[str, ActorWatch] = {}
        self._polled: dict[str, ActorWatch] = {}
        self._reasons: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._watches)

    def __contains__(self, name: str) -> bool:
        return name in self._watches

    def get(self, name: str) -> ActorWatch | None:
        return self._watches.get(name)

    def is_current(self, watch: ActorWatch) -> bool:
        """Whether the actor is still in the table: it may be removed while a loop pauses."""
        return self._watches.get(watch.name) is watch

    def names(self) -> list[str]:
        return list(self._watches)

    def watches(self) -> list[ActorWatch]:
        return list(self._watches.values())

    @property
    def polled_count(self) -> int:
        return len(self._polled)

    def polled(self) -> list[ActorWatch]:
        return list(self._polled.values())

    def polled_because(self) -> dict[str, int]:
        """Reason -> how many actors are polled for it."""
        return {reason: count for reason, count in self._reasons.items() if count}

    def add(self, watch: ActorWatch) -> None:
        self._watches[watch.name] = watch

    def remove(self, name: str) -> ActorWatch:
        watch = self._watches.pop(name)
        self.set_reason(watch, "")
        return watch

    def set_reason(self, watch: ActorWatch, reason: str) -> None:
        """Poll the actor for `reason`; "": do not poll it."""
        if reason == watch.reason:
            return
        self._reasons[watch.reason] -= 1
        self._reasons[reason] += 1
        self._reasons.pop("", None)
        watch.reason = reason
        watch.fingerprint = NOT_POLLED_YET
        if reason:
            self._polled[watch.name] = watch
        else:
            self._polled.pop(watch.name, None)
