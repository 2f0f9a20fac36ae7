"""The pool for actors: each job runs once, in no more greenlets than there are jobs at once."""

import gc
import weakref

import gevent
from gevent.event import Event
from greenlet import greenlet

from daemon.pools.actor_pool import ActorPool


def test_worker_that_is_done_takes_the_next_job():
    workers: list[greenlet] = []
    pool = ActorPool()

    for _ in range(3):
        pool.run(lambda: workers.append(gevent.getcurrent()))
        gevent.sleep(0)

    assert 3 == len(workers)
    assert 1 == len(set(workers))


def test_job_that_waits_delays_no_other():
    first, second = Event(), Event()
    done: list[str] = []
    pool = ActorPool()

    def job(name: str, until: Event) -> None:
        until.wait()
        done.append(name)

    pool.run(lambda: job("first", first))
    pool.run(lambda: job("second", second))
    gevent.sleep(0)
    second.set()
    gevent.sleep(0.01)
    assert ["second"] == done

    pool.run(lambda: done.append("third"))  # by the idle worker, while the other waits
    gevent.sleep(0.01)
    assert ["second", "third"] == done

    first.set()
    gevent.sleep(0.01)
    assert ["second", "third", "first"] == done


def test_as_many_workers_as_jobs_at_once():
    workers: set[greenlet] = set()
    end = Event()
    pool = ActorPool()

    def job() -> None:
        workers.add(gevent.getcurrent())
        end.wait()

    for jobs in (3, 2, 5):
        for _ in range(jobs):
            pool.run(job)
        gevent.sleep(0)
        end.set()
        gevent.sleep(0.01)
        end.clear()

    assert 5 == len(workers)


def test_job_starts_in_the_next_turn_of_the_loop():
    done: list[int] = []
    pool = ActorPool()
    for number in range(2):  # in a new worker, and in an idle one
        pool.run(lambda number=number: done.append(number))
        assert list(range(number)) == done
        gevent.sleep(0)
        assert list(range(number + 1)) == done


def test_idle_worker_does_not_keep_its_last_job():
    class Actor:
        pass

    actor = Actor()
    gone = weakref.ref(actor)
    pool = ActorPool()
    pool.run(lambda actor=actor: None)
    del actor
    gevent.sleep(0)
    gc.collect()

    assert gone() is None
