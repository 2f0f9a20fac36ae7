"""AWS keys in force: single-flight lookup, refresh before expiry, renewal after a rejection."""

import math
import time
from collections.abc import Callable

import gevent
from gevent.event import AsyncResult

from daemon.core.errors import ConfigError, CredentialsMissing, IdentityRejected
from daemon.core.model import Credentials

FAILURE_SECONDS = 4.0  # a failed lookup is not repeated for as long: less than the 5 s until the first probe of an outage
REFRESH_SECONDS = 60.0  # between two refreshes of keys that still hold
REFRESH_BEFORE_SECONDS = 600.0  # before keys expire
SAME_KEYS_SECONDS = 5.0  # after a renewal that gave the same keys, their source is not asked again

_NOT_CONFIGURED = "AWS credentials not configured"

FindCredentials = Callable[[], Credentials | None]


class Identity:
    """Credentials for any number of greenlets at once.

    | the keys | a request |
    |---|---|
    | hold | uses them |
    | hold, and expire within 10 minutes | uses them; one refresh in the background, at most one a minute |
    | never found, forgotten, or expired | waits for the single lookup; its failure holds for all requests for 4 s |

    Each successful lookup is a generation. A rejected request names the generation that signed it: the first rejection starts
    a lookup, the others learn whether that found other keys. A lookup runs in a greenlet of its own: it goes on when an image
    that waits for it is given up.
    """

    def __init__(self, find_credentials: FindCredentials, ask_chain: FindCredentials, look_for: Callable[[], str]) -> None:
        """`find_credentials`: the pair in the settings. Where that is None, `ask_chain` asks boto3's chain.

        The latter may take seconds. `look_for`: the hint when nothing is found: what was looked for, and what to set.
        """
        self._find_credentials = find_credentials
        self._ask_chain = ask_chain
        self._look_for = look_for
        self._kept: Credentials | None = None
        self._from_chain = False
        self._refresh_at = 0.0  # by the wall clock, as expiry is
        self._lookup: AsyncResult[tuple[Credentials, int] | CredentialsMissing] | None = None  # under way
        self._failure: CredentialsMissing | None = None
        self._failed_until = 0.0
        self._lookups = 0
        self._last: tuple[object, ...] | None = None  # the keys of the last successful lookup
        self._last_since = 0  # the lookup that found other keys than the one before
        self._same_until = 0.0

    def current(self) -> tuple[Credentials, int]:
        """The credentials to sign with, and their generation. Raises CredentialsMissing."""
        kept = self._kept
        if kept is not None:
            if self._refresh_at == math.inf or (now := time.time()) < self._refresh_at:
                return kept, self._lookups
            if kept.expires_at is not None and now < kept.expires_at:
                self._refresh_at = min(kept.expires_at, now + REFRESH_SECONDS)
                self._begin()
                return kept, self._lookups
        return self._wait_for_lookup()

    def renew(self, rejected: IdentityRejected) -> bool:
        """Whether there are other keys than those that signed the rejected request.

        Looks them up, unless that was done since. False also where the lookup fails while the known keys have not expired.
        Raises CredentialsMissing.
        """
        if rejected.generation == self._lookups and time.monotonic() >= self._same_until:
            try:
                self._wait_for_lookup()
            except CredentialsMissing:
                kept = self._kept
                if kept is not None and kept.expires_at is not None and time.time() < kept.expires_at:
                    return False
                self._kept = None
                raise
            if self._from_chain and rejected.generation >= self._last_since:
                self._same_until = time.monotonic() + SAME_KEYS_SECONDS
        return rejected.generation < self._last_since

    def forget(self) -> None:
        """Drop the known keys: the next request that needs credentials looks them up."""
        self._kept = self._lookup = self._failure = None
        self._same_until = 0.0

    def _wait_for_lookup(self) -> tuple[Credentials, int]:
        outcome = self._begin().get()
        if isinstance(outcome, CredentialsMissing):
            raise CredentialsMissing(str(outcome), hint=outcome.hint)  # one for each waiter: a raise changes the exception
        found: tuple[Credentials, int] = outcome
        return found

    def _begin(self) -> "AsyncResult[tuple[Credentials, int] | CredentialsMissing]":
        """The running lookup, the failure that still holds, or a new lookup."""
        if self._lookup is not None:
            return self._lookup
        lookup: AsyncResult[tuple[Credentials, int] | CredentialsMissing] = AsyncResult()
        if self._failure is not None and time.monotonic() < self._failed_until:
            lookup.set(self._failure)
            return lookup
        self._lookup = lookup
        gevent.spawn(self._look, lookup)
        return lookup

    def _look(self, lookup: "AsyncResult[tuple[Credentials, int] | CredentialsMissing]") -> None:
        """Run a lookup. `lookup` is always set, for others wait for it."""
        try:
            outcome = self._outcome(lookup)
        except BaseException as bug:
            lookup.set_exception(bug)
            raise  # or the bug in a background refresh would not be logged
        else:
            lookup.set(outcome)
        finally:
            if lookup is self._lookup:
                self._lookup = None

    def _outcome(self, lookup: object) -> tuple[Credentials, int] | CredentialsMissing:
        try:
            found, from_chain = self._find()
        except CredentialsMissing as error:
            if lookup is self._lookup:  # not forgotten meanwhile
                self._failure, self._failed_until = error, time.monotonic() + FAILURE_SECONDS
            return error
        if lookup is self._lookup:
            self._failure = None
            self._take(found, from_chain)
        return found, self._lookups

    def _take(self, found: Credentials, from_chain: bool) -> None:
        self._lookups += 1
        keys = (found.access_key, found.secret_key, found.session_token)
        if keys != self._last:
            self._last, self._last_since = keys, self._lookups
        self._kept = found if found != self._kept else self._kept  # the same object already has a signer
        self._from_chain = from_chain
        self._refresh_at = math.inf
        if found.expires_at is not None:
            soonest = time.time() + REFRESH_SECONDS
            self._refresh_at = min(found.expires_at, max(found.expires_at - REFRESH_BEFORE_SECONDS, soonest))

    def _find(self) -> tuple[Credentials, bool]:
        """The credentials, and whether they are the chain's. Raises CredentialsMissing."""
        error: ConfigError | None = None  # an .env broken since the start, a malformed key, a failing source
        static = found = None
        try:
            static = self._find_credentials()
            found = static or self._ask_chain()
        except ConfigError as raised:
            error = raised
        if found is None:
            reason = f": {error}" if error is not None else ""
            hint = error.hint if error is not None and error.hint else self._look_for()
            raise CredentialsMissing(f"{_NOT_CONFIGURED}{reason}", hint=hint) from error
        return found, static is None
