import gevent
import pytest

from daemon.core.errors import EndpointDown, QuotaExceeded, TimedOut, WrongScheme
from daemon.core.model import Failure, FailureScope, Received
from daemon.core.outages import MANY_IMAGES, Scope, Thing
from daemon.core.retry import refusal
from daemon.download import RetryState
from tests.support.scripted_download import (
    BODY,
    EXPIRED,
    NO_CONNECT,
    REF,
    SLOW_DOWN,
    WHOLE,
    Answer,
    MemoryFolder,
    Run,
    ScriptedStore,
    SlowStore,
    scripted_time,  # noqa: F401 - a fixture
)

GOOD = (WHOLE, BODY)
BROKEN = refusal(500, "InternalError", "injected")
REJECTED = refusal(403, "SignatureDoesNotMatch", "injected")
DENIED = refusal(403, "AccessDenied", "injected")
STORE, KEYS = Thing(Scope.ENDPOINT, "https://s3"), Thing(Scope.IDENTITY, "signed")
DISK = Thing(Scope.DISK, MemoryFolder.device)


def fetch(run: Run, key: str, bucket: str = "b") -> Received | Failure:
    """The outcome of one image with that key, in an empty folder."""
    outcome = run.to_the_end(run.new_state(key, bucket))
    run.folder.images.clear()
    return outcome


def let_one_succeed(run: Run) -> None:
    run.store.by_key["good.png"] = GOOD
    assert isinstance(fetch(run, "good.png"), Received)


# --- endpoints --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [SLOW_DOWN, NO_CONNECT], ids=["throttled", "unreachable"])
@pytest.mark.parametrize("times", [1, 12])
def test_refusals_cost_an_image_no_attempts(fault: Answer, times: int) -> None:
    run = Run(ScriptedStore(*[fault] * times, GOOD))
    let_one_succeed(run)
    assert isinstance(run.to_the_end(), Received)
    assert [] == [event for event in run.log.events if event == "image.failed"]


@pytest.mark.parametrize("fault", [SLOW_DOWN, NO_CONNECT], ids=["throttled", "unreachable"])
def test_endpoint_outage_is_reported_once_and_waited_for(fault: Answer) -> None:
    run = Run(ScriptedStore(GOOD, *[fault] * 20, GOOD))
    assert isinstance(fetch(run, "good.png"), Received)
    began = run.clock.now
    assert isinstance(run.to_the_end(), Received)
    assert ["endpoint.failed", "endpoint.recovered"] == run.log.events
    assert run.clock.now - began < 60
    assert not run.outages.out


@pytest.mark.parametrize(
    ("answered", "fault", "seconds"), [(True, NO_CONNECT, 120), (False, NO_CONNECT, 15), (False, SLOW_DOWN, 120)]
)
def test_endpoint_wait_counts_from_its_last_answer(answered: bool, fault: Answer, seconds: float) -> None:
    run = Run(ScriptedStore(fault))
    if answered:
        let_one_succeed(run)
    began = run.clock.now
    failure = run.to_the_end()
    assert isinstance(failure, Failure)
    assert (EndpointDown.code, FailureScope.SHARED, STORE) == (failure.code, failure.scope, failure.outage)
    assert "injected" in failure.error
    assert seconds - 1 <= run.clock.now - began <= seconds + 5
    assert ["endpoint.failed"] == run.log.events
    requests = run.store.requests
    assert isinstance(fetch(run, "another.png"), Failure)
    assert requests == run.store.requests  # nothing more is sent there


def test_endpoint_is_waited_for_again_after_a_reset() -> None:
    run = Run(ScriptedStore(NO_CONNECT))
    assert isinstance(run.to_the_end(), Failure)
    run.outages.reset(run.clock.now)
    run.downloader.detector.reset()
    began = run.clock.now
    assert isinstance(fetch(run, "1.png"), Failure)
    assert run.clock.now - began >= 14


def test_waiting_can_be_turned_off() -> None:
    run = Run(ScriptedStore(NO_CONNECT), outage_seconds=0.0)
    began = run.clock.now
    assert isinstance(run.to_the_end(), Failure)
    assert 5 == run.store.requests  # --max-attempts still counts
    assert run.clock.now - began < 5


def test_single_refused_image_fails_after_the_outage_time() -> None:
    run = Run(ScriptedStore(SLOW_DOWN))
    let_one_succeed(run)
    state = run.new_state("refused.png")
    began = run.clock.now
    while not isinstance(outcome := run.step(state), Failure):
        assert isinstance(fetch(run, "good.png"), Received)
    assert ("store-unavailable", FailureScope.OWN) == (outcome.code, outcome.scope)
    assert 120 <= run.clock.now - began < 160
    assert not run.outages.out


@pytest.mark.parametrize("fault", [BROKEN, TimedOut("injected"), (WHOLE, BODY[:-1])], ids=["500", "timed out", "short"])
def test_broken_object_is_no_outage(fault: Answer) -> None:
    run = Run(ScriptedStore(fault))
    let_one_succeed(run)
    failure = run.to_the_end()
    assert isinstance(failure, Failure)
    assert FailureScope.OWN is failure.scope
    assert 5 == run.store.requests
    assert not run.outages.out


def test_probe_tells_broken_objects_in_a_row_from_an_outage() -> None:
    run = Run(ScriptedStore(BROKEN))
    let_one_succeed(run)
    states = [run.new_state(f"broken-{number}.png") for number in range(5)]
    outcomes = [run.to_the_end(state) for state in states]
    assert [("store-unavailable", FailureScope.OWN)] * 5 == [(o.code, o.scope) for o in outcomes if isinstance(o, Failure)]
    assert "endpoint.failed" not in run.log.events
    assert sum(state.requests.get("probe", 0) for state in states) == run.store.asked.count("good.png") - 1 > 0


def test_broken_objects_at_the_same_time_are_no_outage() -> None:
    run = Run(SlowStore(BROKEN), max_attempts=9)
    let_one_succeed(run)
    under_way = [gevent.spawn(run.downloader.run, run.log, run.folder, run.new_state(f"{number}.png")) for number in range(5)]
    gevent.joinall(under_way, raise_error=True)
    assert "endpoint.failed" not in run.log.events
    assert not run.outages.out
    assert run.store.asked.count("good.png") > 1


def test_server_errors_for_everything_are_an_outage() -> None:
    run = Run(ScriptedStore(GOOD, *[BROKEN] * 20, GOOD))
    assert isinstance(fetch(run, "good.png"), Received)
    assert isinstance(run.to_the_end(), Received)
    assert ["endpoint.failed", "endpoint.recovered"] == run.log.events


def test_delay_is_kept_when_the_actor_resumes_early() -> None:
    run = Run(ScriptedStore(SLOW_DOWN))
    let_one_succeed(run)
    state = run.new_state("refused.png")
    while state.due <= run.clock.now:
        assert isinstance(fetch(run, "good.png"), Received)
        run.downloader.run(run.log, run.folder, state)  # type: ignore[arg-type]
    requests = run.store.requests
    run.clock.now = state.due - 0.1
    assert state is run.downloader.run(run.log, run.folder, state)  # type: ignore[arg-type]
    assert requests == run.store.requests
    run.outages.reset(run.clock.now)  # as the end of an outage
    run.downloader.run(run.log, run.folder, state)  # type: ignore[arg-type]
    assert requests < run.store.requests


# --- identities -------------------------------------------------------------------------------------------------------


def test_rejected_object_fails_alone_while_the_keys_work() -> None:
    run = Run(ScriptedStore(REJECTED))
    let_one_succeed(run)
    failure = fetch(run, "odd.png")
    assert isinstance(failure, Failure)
    assert ("identity-rejected", FailureScope.OWN) == (failure.code, failure.scope)
    assert "SECRET" not in failure.hint
    assert "other objects" in failure.hint
    assert ["image.failed"] == run.log.events
    assert ["good.png", "odd.png", "good.png"] == run.store.asked  # one probe
    assert isinstance(fetch(run, "good.png"), Received)


def test_keys_that_stop_working_are_an_outage() -> None:
    run = Run(ScriptedStore(REJECTED))
    let_one_succeed(run)
    run.store.by_key["good.png"] = REJECTED
    assert [("identity-rejected", FailureScope.SHARED, KEYS)] * 3 == [
        (outcome.code, outcome.scope, outcome.outage)
        for outcome in (fetch(run, f"{number}.png") for number in range(3))
        if isinstance(outcome, Failure)
    ]
    assert ["identity.failed"] == run.log.events
    assert ["good.png", "0.png", "good.png"] == run.store.asked


def test_expired_token_is_always_an_identity_outage() -> None:
    run = Run(ScriptedStore(EXPIRED))
    let_one_succeed(run)
    failure = fetch(run, "0.png")
    assert isinstance(failure, Failure)
    assert KEYS == failure.outage
    assert 1 == run.store.requests


def test_first_object_of_a_run_may_be_the_only_rejected_one() -> None:
    run = Run(ScriptedStore(REJECTED))
    odd = run.new_state("odd.png")
    assert odd is run.step(odd)  # let others try first
    let_one_succeed(run)
    failure = run.to_the_end(odd)
    assert isinstance(failure, Failure)
    assert FailureScope.OWN is failure.scope
    assert not run.outages.out


def of_three_actors(run: Run, states: list[RetryState]) -> None:
    """Run each as far as it goes now."""
    for number, state in enumerate(states):
        run.folder.path = f"/data/actors/{number % 3}/training_data"
        run.downloader.run(run.log, run.folder, state)  # type: ignore[arg-type]


def test_first_images_of_several_actors_reveal_a_wrong_secret() -> None:
    run = Run(ScriptedStore(REJECTED))
    states = [run.new_state(f"{number}.png") for number in range(100)]
    of_three_actors(run, states)
    assert MANY_IMAGES == run.store.requests  # the others wait, for other buckets to be tried
    assert [] == run.log.events
    assert {KEYS} == {outcome.outage for outcome in map(run.to_the_end, states) if isinstance(outcome, Failure)}
    assert ["identity.failed"] == run.log.events
    assert run.store.requests <= MANY_IMAGES + 2


def test_bucket_that_rejects_first_images_is_no_identity_outage() -> None:
    run = Run(ScriptedStore(REJECTED))
    states = [run.new_state(f"{number}.png", bucket="opt-in") for number in range(100)]
    of_three_actors(run, states)
    let_one_succeed(run)
    outages = {outcome.outage for outcome in map(run.to_the_end, states) if isinstance(outcome, Failure)}
    assert {Thing(Scope.BUCKET, "opt-in")} == outages
    assert "identity.failed" not in run.log.events
    assert isinstance(fetch(run, "good.png"), Received)


def test_first_read_of_another_process_shows_that_the_keys_work() -> None:
    run = Run(ScriptedStore(REJECTED, by_key={"theirs.png": GOOD}))
    run.downloader.detector.take_first_read(REF._replace(key="theirs.png"))
    failure = fetch(run, "odd.png")
    assert isinstance(failure, Failure)
    assert FailureScope.OWN is failure.scope
    assert ["odd.png", "theirs.png"] == run.store.asked


def test_first_read_is_reported_once() -> None:
    run = Run(ScriptedStore(GOOD))
    for number in range(3):
        fetch(run, f"{number}.png")
    assert ["0.png"] == [ref.key for ref in run.working]


def test_repeatedly_rejected_image_fails_where_no_probe_decides() -> None:
    run = Run(ScriptedStore(REJECTED, by_key={"good.png": GOOD}))
    assert isinstance(fetch(run, "good.png"), Received)
    run.store.by_key["good.png"] = SLOW_DOWN
    failure = run.to_the_end(run.new_state("odd.png"), steps=10)
    assert isinstance(failure, Failure)
    assert FailureScope.OWN is failure.scope


def test_bucket_outage_for_signatures_spares_presigned_urls() -> None:
    run = Run(ScriptedStore(REJECTED))
    let_one_succeed(run)
    of_three_actors(run, [run.new_state(f"{number}.png", bucket="opt-in") for number in range(60)])
    assert "bucket.failed" in run.log.events
    run.store.identity = "presigned"
    run.store.by_key["presigned.png"] = GOOD
    assert isinstance(fetch(run, "presigned.png", bucket="opt-in"), Received)


def test_missing_object_ends_an_identity_outage() -> None:
    run = Run(ScriptedStore(EXPIRED, refusal(404, "NoSuchKey", "injected")), probing=True)
    fetch(run, "0.png")
    run.clock.now += 5
    failure = fetch(run, "1.png")
    assert isinstance(failure, Failure)
    assert "object-not-found" == failure.code
    assert ["identity.failed", "identity.recovered", "image.failed"] == run.log.events
    assert not run.outages.out


def test_one_object_redirected_to_https_is_no_outage() -> None:
    wrong = WrongScheme("injected: sends us to https")
    run = Run(ScriptedStore(wrong))
    let_one_succeed(run)
    failure = fetch(run, "moved.png")
    assert isinstance(failure, Failure)
    assert FailureScope.OWN is failure.scope
    run = Run(ScriptedStore(wrong))
    failure = fetch(run, "first.png")
    assert isinstance(failure, Failure)
    assert STORE == failure.outage


def test_only_image_of_a_run_reveals_a_wrong_secret() -> None:
    run = Run(ScriptedStore(REJECTED))
    began = run.clock.now
    failure = run.to_the_end()
    assert isinstance(failure, Failure)
    assert (KEYS, 3) == (failure.outage, run.store.requests)
    assert run.clock.now - began < 5


def test_bucket_that_accepts_no_signature_is_reported_once() -> None:
    run = Run(ScriptedStore(REJECTED))
    let_one_succeed(run)
    for number in range(60):
        run.folder.path = f"/data/actors/{number % 3}/training_data"
        fetch(run, f"{number}.png", bucket="opt-in")
    assert ("image.failed", MANY_IMAGES - 1, 1) == (
        run.log.events[0],
        run.log.events.count("image.failed"),
        run.log.events.count("bucket.failed"),
    )
    assert MANY_IMAGES == run.store.requests
    assert isinstance(fetch(run, "good.png"), Received)


# --- disks ------------------------------------------------------------------------------------------------------------


class QuotaFolder(MemoryFolder):
    """An ImageFolder whose quota is used up."""

    def require_room(self, size_bytes: int) -> None:
        if self.full:
            raise QuotaExceeded("injected: quota")


def at(folder: MemoryFolder, path: str, device: str) -> MemoryFolder:
    folder.path, folder.device = path, device
    return folder


def test_full_disk_does_not_stop_another_disk() -> None:
    run = Run(ScriptedStore(GOOD), MemoryFolder(full=True))
    failure = fetch(run, "0.png")
    assert isinstance(failure, Failure)
    assert (FailureScope.SHARED, DISK) == (failure.scope, failure.outage)
    run.folder = at(MemoryFolder(full=True), "/data/actors/2/training_data", MemoryFolder.device)
    assert isinstance(fetch(run, "1.png"), Failure)
    run.folder = at(MemoryFolder(), "/data/actors/3/training_data", "8:2")
    assert isinstance(fetch(run, "2.png"), Received)
    assert ["disk.failed"] == run.log.events  # and not recovered by the other


def test_quota_stops_its_folder_alone() -> None:
    run = Run(ScriptedStore(GOOD), QuotaFolder(full=True))
    failure = fetch(run, "0.png")
    assert isinstance(failure, Failure)
    assert ("quota-exceeded", Thing(Scope.DISK, MemoryFolder.path)) == (failure.code, failure.outage)
    run.folder = at(MemoryFolder(), "/data/actors/2/training_data", MemoryFolder.device)
    assert isinstance(fetch(run, "1.png"), Received)


def test_quota_that_admits_only_a_probe_does_not_flap() -> None:
    run = Run(ScriptedStore(GOOD), MemoryFolder(refuses=QuotaExceeded("injected: quota")), probing=True)
    for number in range(4):
        assert isinstance(fetch(run, f"{number}.png"), Failure)
        run.clock.now += 60
    assert ["disk.failed"] == run.log.events
    assert 3 == run.folder.probes


def test_disk_recovery_is_found_without_network() -> None:
    folder = MemoryFolder(full=True)
    run = Run(ScriptedStore(GOOD), folder, probing=True)
    fetch(run, "0.png")
    run.clock.now += 5
    fetch(run, "1.png")
    assert (1, 0) == (folder.probes, run.store.requests)
    folder.full = False
    run.clock.now += 10
    assert isinstance(fetch(run, "2.png"), Received)
    assert ["disk.failed", "disk.recovered"] == run.log.events
    assert 2 == folder.probes


def test_full_disk_leaves_the_endpoint_to_other_probes() -> None:
    folder = MemoryFolder(full=True)
    run = Run(ScriptedStore(GOOD), folder, probing=True)
    fetch(run, "0.png")
    run.outages.begin(STORE, EndpointDown("injected"), run.clock.now)
    run.clock.now += 5
    fetch(run, "1.png")
    run.clock.now += 1
    outage, _ = run.outages.blocking(run.clock.now, (STORE,))
    assert outage is not None
    assert not outage.is_waited_for(run.clock.now)


def test_refused_images_are_no_outage_after_a_remote_first_read() -> None:
    run = Run(ScriptedStore(SLOW_DOWN, by_key={"theirs.png": GOOD}))
    run.downloader.detector.take_first_read(REF._replace(key="theirs.png"))
    states = [run.new_state(f"{number}.png") for number in range(3)]
    outcomes = [run.to_the_end(state) for state in states]
    assert {("store-unavailable", FailureScope.OWN)} == {(outcome.code, outcome.scope) for outcome in outcomes}
    assert "endpoint.failed" not in run.log.events
