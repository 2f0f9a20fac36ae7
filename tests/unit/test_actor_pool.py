"""Greenlets that are used again: everything is done once, by no more of them than are needed at once."""

import gc
import weakref

import gevent
from gevent.event import Event
from greenlet import greenlet

from daemon.pools.actor_pool import ActorPool


def test_one_that_has_ended_its_work_does_the_next():
    who: list[greenlet] = []
    runners = ActorPool()

    for _ in range(3):
        runners.run(lambda: who.append(gevent.getcurrent()))
        gevent.sleep(0)

    assert 3 == len(who)
    assert 1 == len(set(who))


def test_whoever_waits_holds_up_nobody():
    first, second = Event(), Event()
    done: list[str] = []
    runners = ActorPool()

    def work(name: str, until: Event) -> None:
        until.wait()
        done.append(name)

    runners.run(lambda: work("first", first))
    runners.run(lambda: work("second", second))
    gevent.sleep(0)
    second.set()
    gevent.sleep(0.01)
    assert ["second"] == done

    runners.run(lambda: done.append("third"))  # by the one that has nothing to do, while the other waits
    gevent.sleep(0.01)
    assert ["second", "third"] == done

    first.set()
    gevent.sleep(0.01)
    assert ["second", "third", "first"] == done


def test_a_stray_wake_up_loses_nothing():
    who: list[greenlet] = []
    done: list[str] = []
    runners = ActorPool()
    runners.run(lambda: who.append(gevent.getcurrent()))
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(who[0].switch)
    gevent.sleep(0)

    for name in ("first", "second"):
        runners.run(lambda name=name: done.append(name))
    gevent.sleep(0.01)

    assert ["first", "second"] == done


def test_nothing_is_begun_before_the_loop_turns():
    done: list[int] = []
    runners = ActorPool()
    for number in range(2):  # by a new one, and by one that has nothing to do
        runners.run(lambda number=number: done.append(number))
        assert list(range(number)) == done
        gevent.sleep(0)
        assert list(range(number + 1)) == done


def test_what_was_done_is_forgotten():
    class Actor:
        pass

    actor = Actor()
    gone = weakref.ref(actor)
    runners = ActorPool()
    runners.run(lambda actor=actor: None)
    del actor
    gevent.sleep(0)
    gc.collect()

    assert gone() is None
