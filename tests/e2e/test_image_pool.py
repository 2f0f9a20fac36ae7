"""The download slots are all used, whatever the actors' sizes, and never exceeded."""

from collections.abc import Sequence
from threading import Event

import pytest

from tests.support.daemons import running_daemon
from tests.support.fault_server import ANY, FaultServer
from tests.support.faults import held_until
from tests.support.product import Finished
from tests.support.trees import BUCKET, ActorTree
from tests.support.waiting import wait_until

AT_ONCE = 6  # three images of each of two actors
PROCESSES = pytest.mark.parametrize("processes", ["1", "2"])


def slots(processes: str, workers_per_actor: int = 3, concurrent_actors: int = 2) -> list[str]:
    numbers = ["--workers-per-actor", str(workers_per_actor), "--concurrent-actors", str(concurrent_actors)]
    return ["--once", "--processes", processes, *numbers]


def names(tree: ActorTree) -> list[str]:
    return sorted({path.parent.parent.name for path in tree.expected})


def paths(tree: ActorTree, actor: str = "") -> list[str]:
    """The paths of the images' requests, in the order of the manifests."""
    return [f"/{bucket}/{key}" for bucket, key in tree.objects if f"/{actor}" in key]


def actors_with(tree: ActorTree, server: FaultServer, images: Sequence[int]) -> None:
    for number, count in enumerate(images, 1):
        tree.actor(f"{number:04}_european_25_male", images=count)
    tree.upload_to(server)


def assert_all_is_synced(finished: Finished, tree: ActorTree, server: FaultServer) -> None:
    assert (0, "") == (finished.returncode, finished.stderr)
    tree.assert_matches()
    assert sorted(paths(tree)) == sorted(request.path for request in server.requests)  # each once
    assert names(tree) == sorted(line["actor"] for line in finished.events("actor.synced"))
    assert finished.events("run.completed", status="complete", downloaded=len(tree.expected), failed=0, unattempted=0)


@PROCESSES
@pytest.mark.parametrize("images", [[1] * 20, [5] * 8, [2, 1, 4, 1, 1, 7, 3, 1, 2, 5]], ids=["one each", "five each", "mixed"])
def test_each_image_that_ends_lets_the_next_start(actor_tree, product, fault_server, images, processes):
    actors_with(actor_tree, fault_server, images)
    ends = {path: Event() for path in paths(actor_tree)}
    for path, end in ends.items():
        fault_server.inject(path, held_until(end))
    with product.start(slots(processes), actor_tree.root, env=fault_server.account.environment) as running:
        for ended in range(len(ends)):
            count = ended + (AT_ONCE if actors_wait(fault_server, actor_tree) else 1)
            wait_until(lambda count=count: len(fault_server.requests) >= count)
            under_way = [request.path for request in fault_server.requests if not ends[request.path].is_set()]
            assert len(under_way) <= AT_ONCE
            ends[under_way[ended * 7 % len(under_way)]].set()  # not the oldest first
        finished = running.finish()

    assert_all_is_synced(finished, actor_tree, fault_server)
    assert AT_ONCE == fault_server.peak_waiting()
    for actor in names(actor_tree):
        assert fault_server.peak_waiting(f"/{BUCKET}/training/{actor}/") <= 3


def actors_wait(server: FaultServer, tree: ActorTree) -> bool:
    """Whether more actors have no request yet than may have started without one."""
    return len(names(tree)) - len({request.path.split("/")[-2] for request in server.requests}) > 2


@PROCESSES
def test_limits_of_all_and_of_each_actor_are_reached_but_not_exceeded(actor_tree, product, fault_server, processes):
    actors_with(actor_tree, fault_server, [5] * 12)
    fault_server.latency_seconds = 0.05
    finished = product.run(slots(processes), actor_tree.root, env=fault_server.account.environment)

    assert_all_is_synced(finished, actor_tree, fault_server)
    assert AT_ONCE == fault_server.peak_waiting()
    assert fault_server.peak_connections <= AT_ONCE
    assert 3 == max(fault_server.peak_waiting(f"/{BUCKET}/training/{actor}/") for actor in names(actor_tree))


@PROCESSES
def test_hanging_image_does_not_block_other_actors(actor_tree, product, fault_server, processes):
    actors_with(actor_tree, fault_server, [3] * 6)
    hanging, go_on = paths(actor_tree)[0], Event()
    fault_server.inject(hanging, held_until(go_on))
    first, *others = names(actor_tree)
    args = slots(processes, workers_per_actor=2, concurrent_actors=1)
    with product.start(args, actor_tree.root, env=fault_server.account.environment) as running:
        for actor in others:
            running.wait_for("actor.synced", actor=actor)
        assert [] == running.events("actor.synced", actor=first)
        assert [] == running.events("run.completed")
        go_on.set()
        finished = running.finish()

    assert_all_is_synced(finished, actor_tree, fault_server)
    assert 2 == fault_server.peak_waiting()


@PROCESSES
def test_one_at_a_time_keeps_the_order_of_the_manifests(actor_tree, product, fault_server, processes):
    actors_with(actor_tree, fault_server, [2, 1, 1, 3, 1])
    fault_server.latency_seconds = 0.01
    args = slots(processes, workers_per_actor=1, concurrent_actors=1)
    finished = product.run(args, actor_tree.root, env=fault_server.account.environment)

    assert_all_is_synced(finished, actor_tree, fault_server)
    assert paths(actor_tree) == [request.path for request in fault_server.requests]
    assert (1, 1) == (fault_server.peak_waiting(), fault_server.peak_connections)


def test_changed_actor_uses_a_free_slot(actor_tree, product, fault_server):
    actors_with(actor_tree, fault_server, [0, 0])
    first, second = (f"{number:04}_european_25_male" for number in (1, 2))
    args = ("--workers-per-actor", "2", "--concurrent-actors", "2")
    go_on = Event()
    with running_daemon(product, actor_tree, fault_server, *args) as daemon:
        fault_server.inject(ANY, *[held_until(go_on)] * 2)
        daemon.change(first, images=2)
        wait_until(lambda: len(fault_server.requests) >= 2)
        daemon.change(second, images=2)
        daemon.wait_for_images_of(second)
        go_on.set()
        daemon.wait_for_images()
    assert 4 == len(fault_server.requests)
