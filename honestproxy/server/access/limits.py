"""How much a key may use: requests and tokens a minute, and tokens a day.

What is counted is what this process has seen: proxies that stand side by side count each for
themselves, unless a shared trace store tells at the start what was spent today. Tokens are known
when an answer has ended, so answers under way at that time may go beyond a limit.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Final

from honestproxy.errors import RateLimited
from honestproxy.server.access.keys import Key
from honestproxy.server.access.usage import tokens
from honestproxy.server.account import Account

MINUTE: Final = 60
DAY: Final = 86_400


class Window:
    """What was used in the last minute, by the second; times are whole seconds that never fall."""

    __slots__ = ("_used", "total")

    def __init__(self) -> None:
        self._used: deque[tuple[int, int]] = deque()
        self.total = 0

    def add(self, now: int, amount: int) -> None:
        """Something was used."""
        if self._used and self._used[-1][0] == now:
            amount_before = self._used.pop()[1]
            self._used.append((now, amount_before + amount))
        else:
            self._used.append((now, amount))
        self.total += amount

    def forget(self, now: int) -> None:
        """What was used a minute ago counts no more."""
        while self._used and self._used[0][0] <= now - MINUTE:
            self.total -= self._used.popleft()[1]

    def wait(self, now: int, most: int) -> int:
        """Seconds until less than `most` is used; 0 where that is so now."""
        left, seconds = self.total, MINUTE
        for at, amount in self._used:
            if left < most:
                break
            left -= amount
            seconds = at + MINUTE - now
        return seconds if self.total >= most else 0

    @property
    def age(self) -> int:
        """The second of the oldest use that still counts; 0 where there is none."""
        return self._used[0][0] if self._used else 0


class Meter:
    """What one key has used: in the last minute, and today."""

    __slots__ = ("day", "requests", "spent", "tokens")

    def __init__(self) -> None:
        self.requests = Window()
        self.tokens = Window()
        self.day = 0
        self.spent = 0

    def admit(self, key: Key, now: int, day: int) -> dict[str, str]:
        """Count a request; what to tell of the limits. Raises RateLimited where one is reached."""
        self._forget(now, day)
        self._check(key, now)
        self.requests.add(now, 1)
        return self._told(key, now)

    def use(self, amount: int, now: int, day: int) -> None:
        """Count the tokens of an answer that has ended."""
        self._forget(now, day)
        self.tokens.add(now, amount)
        self.spent += amount

    def _forget(self, now: int, day: int) -> None:
        self.requests.forget(now)
        self.tokens.forget(now)
        if day != self.day:
            self.day, self.spent = day, 0

    def _check(self, key: Key, now: int) -> None:
        for what, most, window in self._windows(key):
            if wait := window.wait(now, most):
                message = f"this key may use {most} {what} a minute; try again in {wait} s"
                raise _limited(message, wait, self._told(key, now))
        if key.spend is not None and self.spent >= key.spend:
            wait = DAY - int(time.time()) % DAY
            message = f"this key may use {key.spend} tokens a day, by UTC, and has used them"
            told = {**self._told(key, now), "x-should-retry": "false"}
            raise _limited(message, wait, told, code="insufficient_quota")

    def _windows(self, key: Key) -> Iterator[tuple[str, int, Window]]:
        if key.rpm is not None:
            yield "requests", key.rpm, self.requests
        if key.tpm is not None:
            yield "tokens", key.tpm, self.tokens

    def _told(self, key: Key, now: int) -> dict[str, str]:
        """The headers by which OpenAI's API tells of limits."""
        told = {}
        for what, most, window in self._windows(key):
            whole = window.age + MINUTE - now if window.total else 0
            told[f"x-ratelimit-limit-{what}"] = str(most)
            told[f"x-ratelimit-remaining-{what}"] = str(max(0, most - window.total))
            told[f"x-ratelimit-reset-{what}"] = f"{whole}s"
        return told


class Meters:
    """What each key has used; told of every request's end."""

    def __init__(self) -> None:
        self._by_key: defaultdict[str, Meter] = defaultdict(Meter)

    def admit(self, key: Key) -> dict[str, str]:
        """Count a request of that key. Raises RateLimited."""
        return self._by_key[key.id].admit(key, *_now())

    def note(self, account: Account) -> None:
        """Count what an answer took."""
        name = account.caller.id
        if name is not None and (amount := tokens(account)):
            self._by_key[name].use(amount, *_now())

    def seed(self, spent: Mapping[str, int]) -> None:
        """What was spent today before this process counted, as a trace store remembers it."""
        _, day = _now()
        for name, amount in spent.items():
            meter = self._by_key[name]
            meter.day, meter.spent = day, max(amount, meter.spent if meter.day == day else 0)


def today() -> float:
    """When the day began that spending is counted by, in seconds since 1970."""
    return math.floor(time.time() / DAY) * DAY


def _now() -> tuple[int, int]:
    return int(time.monotonic()), int(time.time() // DAY)


def _limited(message: str, wait: int, told: dict[str, str], code: str | None = None) -> RateLimited:
    return RateLimited(message, code=code, headers={**told, "retry-after": str(wait)})
