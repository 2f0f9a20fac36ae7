"""Messages between the process that owns a run and its worker processes."""

from typing import NamedTuple

from daemon.actor_sync import Counts
from daemon.core.errors import ActorsyncError
from daemon.core.model import ObjectRef
from daemon.core.outages import Thing
from daemon.core.report import ActorResult
from daemon.process_stats import ProcessStats

# --- to a worker ------------------------------------------------------------------------------------------------------


class StartActor(NamedTuple):
    """Sync this actor."""

    actor: str


class ResumeActor(NamedTuple):
    """Go on with an actor that paused in this worker, and is due."""

    actor: str


class Stop(NamedTuple):
    """Start no more images."""


class Abandon(NamedTuple):
    """Interrupt all transfers."""


# --- both ways --------------------------------------------------------------------------------------------------------


class OutageBegan(NamedTuple):
    """Something that all processes share is out. `actor`: the one whose image failed; empty to a worker."""

    actor: str
    thing: Thing
    error: ActorsyncError


class OutageOver(NamedTuple):
    """It works again. `actor`: the one whose image succeeded; empty to a worker."""

    actor: str
    thing: Thing


class FirstRead(NamedTuple):
    """The first object that was read from its endpoint, as its identity: both work."""

    ref: ObjectRef


# --- from a worker ----------------------------------------------------------------------------------------------------


class LogRecord(NamedTuple):
    """An event for the log of the actor's run."""

    actor: str
    level: str
    event: str
    facts: dict[str, object]


class LastImageStarted(NamedTuple):
    """The actor needs no further slot; another actor may be started."""

    actor: str


class ActorPaused(NamedTuple):
    """The worker keeps the rest of the actor until `due`.

    `if_interrupted`: the result if the actor is never resumed.
    """

    due: float
    if_interrupted: ActorResult


class ActorCrashed(NamedTuple):
    """A bug of ours ended the actor."""

    traceback: str


class ActorEnded(NamedTuple):
    """How an actor's run, or its first part, ended."""

    actor: str
    end: ActorResult | ActorPaused | ActorCrashed


class WorkerStats(NamedTuple):
    """What the worker did and used until now.

    Sent at intervals while it has actors, and before the ActorEnded after which it has none.
    """

    counts: Counts
    usage: ProcessStats
