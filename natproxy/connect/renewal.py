"""The bundle while the command runs: another one in its place is taken up, and the end of its certificate told.

I/O: reads files.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from natproxy.connect.papers import Papers, read_papers, stamp
from natproxy.errors import BundleError

SOON_SECONDS = 7 * 86400
"""A certificate that ends sooner is told of."""

Say = Callable[[str, str], None]
"""Takes an event's name (trouble | healed | renewed | expiring) and a line."""


class Renewal:
    """Of one run, which began with ``papers``."""

    def __init__(self, papers: Papers, say: Say) -> None:
        self._papers = papers
        self._say = say
        self._stamp = stamp(papers.path)
        self._flaw = ""
        """Why what lies there now is not taken up; empty = it is, or is no other."""
        self._ending = 0.0
        """When the certificate ends of whose end was told."""

    @property
    def papers(self) -> Papers:
        """The last that were found good."""
        return self._papers

    def look_at_bundle(self) -> bool:
        """Take up a bundle that has been replaced; return whether it was."""
        seen = stamp(self._papers.path)
        if seen == self._stamp:
            return False
        self._stamp = seen
        try:
            papers = read_papers(self._papers.path, time.time())
        except BundleError as error:
            self._failed(str(error))
            return False
        is_other = (papers.own, papers.ca) != (self._papers.own, self._papers.ca)
        self._read_again(is_other=is_other)
        if not is_other:
            return False
        self._papers = papers
        self._say("renewed", f"the new bundle is taken up: {papers.name}, valid until {papers.expires_on}")
        self.look_at_dates()
        return True

    def look_at_dates(self) -> None:
        """Tell once that a certificate ends soon."""
        papers = self._papers
        if papers.expires != self._ending and papers.expires - time.time() < SOON_SECONDS:
            self._ending = papers.expires
            ends = f"the certificate of {papers.name} ends on {papers.expires_on}"
            self._say("expiring", f"{ends}: ask the operator for a new bundle, and put it in the place of this one")

    def _failed(self, flaw: str) -> None:
        if flaw != self._flaw:
            self._flaw = flaw
            self._say("trouble", f"the bundle has changed and is not taken up: {flaw}")

    def _read_again(self, *, is_other: bool) -> None:
        if self._flaw:
            self._flaw = ""
            what = "" if is_other else ", and is the one in use"
            self._say("healed", f"the bundle {self._papers.path} can be read again{what}")
