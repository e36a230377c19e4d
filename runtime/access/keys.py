"""The keys of the issuer of tokens, kept up to date."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol, TypeVar

from runtime.access.key_set import Key, KeySet, KeySetError, parse_key_set
from runtime.backoff import Backoff
from runtime.errors import ApiError, unavailable
from runtime.logs import LogOnce

log = logging.getLogger(__name__)

T = TypeVar("T")

LOAD_TIMEOUT = 5.0
"""Seconds that it may take to load the keys."""

RETRY_PAUSES = (2.0, 60.0)
"""The first and the longest pause after a failure, in seconds. A token that names an unknown key cuts it short."""

MAX_WAITING = 50
"""How many calls may wait for keys at a time. Anybody can send a token that names an unknown key."""

WAIT_TIMEOUT = 15.0
"""Seconds that a call waits for keys at the most: a load that runs, a pause, and one more load."""


MISSING_TIME = 5.0
"""Seconds for which a key that the issuer does not have is not looked for again: after it removed a key, many callers
still have tokens of it, and should get new ones at once."""

MAX_MISSING = 1_000
"""How many such keys are remembered."""


class Source(Protocol):
    """Where a key set comes from."""

    name: str
    """The place, for the log."""
    interval: float
    """Seconds between two looks at it."""
    min_interval: float
    """Seconds between two looks at it while tokens name a key that is not known."""

    async def load(self) -> bytes:
        """Returns the key set as it is now.

        Raises:
            KeySetError: It cannot be had.
        """
        ...


class Keys:
    """The keys of an issuer."""

    def __init__(self, source: Source, algorithms: Sequence[str]) -> None:
        """Starts without a key.

        Args:
            source: Where the keys come from.
            algorithms: The algorithms that are allowed.
        """
        self._source = source
        self._algorithms = algorithms
        self._set = KeySet()
        self._text: bytes | None = None
        self._published: str | None = None
        self._failure = ""
        """Why the last load failed; empty if it did not."""
        self._failures = LogOnce(log, logging.WARNING)
        self._ignored = LogOnce(log, logging.INFO)
        self._missing: dict[str, float] = {}
        """The keys that the issuer did not have, and until when they are not looked for again."""
        self.loads = 0
        """How often the keys could be loaded."""
        self.failures = 0
        """How often they could not."""
        self._success_time = time.monotonic()
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._begun = self._ended = 0
        self._begin_time = -float("inf")
        self._end = asyncio.Event()
        """Is set at the end of the load that runs, or runs next."""

    @property
    def age(self) -> float:
        """Seconds since the keys were loaded last; if they never were, since the process started."""
        return time.monotonic() - self._success_time

    def public_jwks(self) -> str | None:
        """Returns the keys that can be used as a JSON Web Key Set; None if none are known yet."""
        return self._published

    def names(self, kid: str | None) -> bool:
        """Returns whether a known key has this name."""
        return self._set.names(kid)

    def update(self, text: bytes) -> None:
        """Takes over a key set.

        Raises:
            KeySetError: It cannot be used. The keys stay as they were.
        """
        if text == self._text:
            return
        before = self._set
        self._set = parse_key_set(text, self._algorithms, before)
        self._text = text
        self._published = self._set.to_json()
        if self._set.keys != before.keys:
            names = ", ".join(key.kid or "(no name)" for key in self._set.keys)
            log.info("the keys that tokens are verified with: %s", names)
        if self._set.ignored:
            self._ignored("keys of the issuer that are not used: " + ", ".join(dict.fromkeys(self._set.ignored)))

    async def find(
        self,
        algorithm: str,
        kid: str | None,
        attempt: Callable[[Key], T | None],
        max_waiting: int = MAX_WAITING,
    ) -> tuple[Key, T] | None:
        """Finds the key that verifies a token. If no known key does, it may be a new one: looks for it.

        Args:
            algorithm: The algorithm of the token.
            kid: The key that the token names, if any.
            attempt: Returns what the token says if a key verifies it, and None if not.
            max_waiting: How many calls may wait for keys if this one is to wait, too.

        Returns:
            The key, and the result of the attempt; None if the issuer has no such key.

        Raises:
            ApiError: UNAVAILABLE if the keys cannot be had, or if too many calls wait for keys.
        """
        tried: set[Key] = set()

        def find_known() -> tuple[Key, T] | None:
            for key in self._set.candidates(algorithm, kid):
                if key not in tried:
                    tried.add(key)
                    result = attempt(key)
                    if result is not None:
                        return key, result
            return None

        found = find_known()
        if found or self._is_known(algorithm, kid) or self._is_missing(kid):
            return found
        if self._waiting >= max_waiting:
            raise unavailable("too many tokens name a key that is not known yet", self._source.min_interval)
        self._waiting += 1
        self._wanted.set()
        first_new = self._begun + 1
        try:
            async with asyncio.timeout(WAIT_TIMEOUT):
                while self._ended < first_new:
                    await self._end.wait()
                    if self._failure:
                        raise self._unavailable()
                    found = find_known()
                    if found or self._is_known(algorithm, kid):
                        return found
        except TimeoutError:
            raise self._unavailable() from None
        finally:
            self._waiting -= 1
        if kid is not None:
            self._missing.pop(kid, None)
            self._missing[kid] = asyncio.get_running_loop().time() + MISSING_TIME
            if len(self._missing) > MAX_MISSING:
                del self._missing[next(iter(self._missing))]
        return None

    async def run(self) -> NoReturn:
        """Keeps the keys up to date, until it is cancelled."""
        backoff = Backoff(*RETRY_PAUSES)
        while True:
            pause = self._source.interval * random.uniform(0.9, 1)  # noqa: S311 - no secret
            if await self._load():
                backoff.reset()
            else:
                pause = min(pause, backoff.next())
            await self._pause(pause)

    async def _load(self) -> bool:
        """Loads the keys. Returns whether that succeeded."""
        self._begun += 1
        self._begin_time = asyncio.get_running_loop().time()
        failure = "it was interrupted"
        try:
            async with asyncio.timeout(LOAD_TIMEOUT):
                self.update(await self._source.load())
            failure = ""
        except KeySetError as error:
            failure = str(error)
        except TimeoutError:
            failure = f"no response within {LOAD_TIMEOUT:g} s"
        finally:
            self._ended, self._failure = self._begun, failure
            ended, self._end = self._end, asyncio.Event()
            ended.set()
        if failure:
            self.failures += 1
            self._failures(f"cannot load the keys of tokens from {self._source.name}: {failure}")
            return False
        self.loads += 1
        self._success_time = time.monotonic()
        if self._failures.reset():
            log.info("the keys of tokens can be loaded again")
        return True

    async def _pause(self, seconds: float) -> None:
        """Waits before the next load, but not so long if a call waits for keys."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        while (left := end - clock()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._wanted.wait()
            except TimeoutError:
                return
            self._wanted.clear()
            await asyncio.sleep(self._begin_time + self._source.min_interval - clock())
            if self._waiting:
                return

    def _is_known(self, algorithm: str, kid: str | None) -> bool:
        """Returns whether the key of a token is among those that are known, so that no new one can be meant."""
        if kid is not None:
            return self._set.names(kid)
        candidates = self._set.candidates(algorithm, kid)
        return bool(candidates) and all(key.kid is not None for key in candidates)

    def _is_missing(self, kid: str | None) -> bool:
        """Returns whether the issuer did not have a key a short time ago."""
        return kid is not None and asyncio.get_running_loop().time() < self._missing.get(kid, 0)

    def _unavailable(self) -> ApiError:
        return unavailable("the keys of the issuer of tokens cannot be loaded now", self._source.min_interval)
