"""When the portal is asked again. Pure.

For what may be new it is asked at once, but not while it refuses the certificate: each client that tries on would have
it asked the same once more.
"""

from __future__ import annotations

import random

REFRESH_SECONDS = 15.0
LOST_SECONDS = 5.0
"""The same while the portal cannot be had."""
REFUSED_SECONDS = 60.0
"""The same while natproxy refuses the certificate; another bundle is shown to it at once."""


class Schedule:
    """Of one run. Times are any clock's, in seconds."""

    def __init__(self) -> None:
        self._asked_at = 0.0
        self._is_refused = False
        self.due = 0.0
        """When it is asked next."""

    @property
    def heeds_hints(self) -> bool:
        """Whether what may be new is worth asking for."""
        return not self._is_refused

    def asked(self, now: float, *, is_lost: bool = False, is_refused: bool = False) -> None:
        """It has been asked: it gave a directory, or none, or refuses the certificate."""
        self._asked_at = now
        self._is_refused = is_refused
        seconds = REFUSED_SECONDS if is_refused else LOST_SECONDS if is_lost else REFRESH_SECONDS
        self.due = now + seconds * random.uniform(0.9, 1.1)  # noqa: S311 (so that not all ask at once)

    def let_in(self) -> None:
        """A port lets us in that did not: the portal may, too."""
        if self._is_refused:
            self.due = min(self.due, self._asked_at + REFRESH_SECONDS)
