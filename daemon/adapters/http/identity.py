"""Who asks: looked for when first needed, and looked for again, once for all, when S3 rejects it."""

from collections.abc import Callable

from gevent.lock import RLock

from daemon.core.errors import ConfigError, CredentialsMissing, IdentityRejected
from daemon.core.model import Credentials

_NOT_CONFIGURED = "AWS credentials not configured"

FindCredentials = Callable[[], Credentials | None]
Chain = Callable[[], FindCredentials | None]


class Identity:
    """The credentials in force; many greenlets at once may ask.

    A lookup counts one generation. Who was rejected says which generation it was signed with: the first of them to come
    looks again, and the others learn whether that found anybody else.
    """

    def __init__(self, find_credentials: FindCredentials, ask_chain: Chain, look_for: Callable[[], str]) -> None:
        """`find_credentials`: the pair that the settings give. Where that is None, `ask_chain` finds a source whose
        credentials may change by themselves, and is asked for the current ones each time; None: there is none.
        `look_for`: what was looked for and what to set, when nothing is found.
        """
        self._find_credentials = find_credentials
        self._ask_chain = ask_chain
        self._look_for = look_for
        self._lock = RLock()
        self._current: FindCredentials | None = None
        self._last: tuple[object, ...] | None = None  # the keys that the last lookup found
        self._lookups = 0
        self._last_since = 0  # the lookup that found another identity than the one before

    def current(self) -> tuple[Credentials, int]:
        """The credentials to sign with, and their generation. Raises CredentialsMissing."""
        current = self._current
        if current is None:
            with self._lock:
                current = self._current or self._look()
        try:
            credentials = current()
        except CredentialsMissing as error:  # they ran out, and their source gives no new ones
            raise self._missing(error) from error
        if credentials is None:
            raise self._missing(None)
        return credentials, self._lookups

    def renew(self, rejected: IdentityRejected) -> bool:
        """Look again, unless somebody did since the rejected request was signed. True: there is another identity now.

        Raises CredentialsMissing.
        """
        with self._lock:
            if rejected.generation == self._lookups:
                self._current = None
                self._look()
            return rejected.generation < self._last_since

    def forget(self) -> None:
        """Look again before the next request that needs credentials."""
        with self._lock:
            self._current = None

    def _look(self) -> FindCredentials:
        try:
            static = self._find_credentials()
            current = self._ask_chain() if static is None else lambda: static
            found = current() if current is not None else None
        except ConfigError as error:  # a .env that went bad since the start, a key that cannot be one, a broken profile
            raise self._missing(error) from error
        if current is None or found is None:
            raise self._missing(None)
        self._lookups += 1
        keys = (found.access_key, found.secret_key, found.session_token)
        if keys != self._last:
            self._last, self._last_since = keys, self._lookups
        self._current = current
        return current

    def _missing(self, error: ConfigError | None) -> CredentialsMissing:
        reason = f": {error}" if error is not None else ""
        hint = error.hint if error is not None and error.hint else self._look_for()
        return CredentialsMissing(f"{_NOT_CONFIGURED}{reason}", hint=hint)
