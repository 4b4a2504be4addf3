"""What goes wrong on purpose: faults by operation and count. Pure but for the threads that wait.

fault = server.fault("DescribeCacheClusters", "throttle", times=2)   # the next two, then all is well
fault = server.fault("*", "server-error", times=None)                # every operation until server.heal()
fault = server.fault("DescribeCacheClusters", "slow")                # answered when fault.release() is called
fault.wait_until_hit()
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

FaultKind = Literal[
    "throttle", "server-error", "internal-error", "denied", "expired", "invalid-key",
    "hang", "slow", "reset", "close", "truncated", "cut-off", "html", "nonsense", "empty",
]  # fmt: skip
"""How a request is treated:

    throttle        400 Throttling                     hang        never answered, until released or the end
    server-error    503 ServiceUnavailable             slow        answered properly once released
    internal-error  500 InternalFailure                reset       TCP reset instead of an answer
    denied          403 AccessDenied, as AWS words it  close       the connection closed instead of an answer
    expired         403 ExpiredToken                   truncated   the XML ends in its middle
    invalid-key     403 InvalidClientTokenId           cut-off     the connection ends before the promised length
    html            200 with a page of HTML            nonsense    200 with XML that is not AWS's
    empty           200 without a body
"""


@dataclass
class Fault:
    """One fault that was ordered."""

    operation: str
    """An operation's name, ``*`` for all of them, or ``imds`` for the instance metadata."""
    kind: FaultKind
    times: int | None
    """How many requests it still strikes; None = all."""
    hits: int = 0
    is_released: bool = False
    _waiting: list[Callable[[], object]] = field(default_factory=list)
    _hit: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        if self.kind not in get_args(FaultKind):
            message = f"there is no fault {self.kind!r}"
            raise ValueError(message)

    def release(self) -> None:
        """Let what hangs or is slow go on, now and from now on."""
        with self._hit:
            self.is_released = True
            waiting, self._waiting = self._waiting, []
        for go_on in waiting:
            go_on()

    def when_released(self, go_on: Callable[[], object]) -> None:
        """Have ``go_on`` called, in whatever thread, once this is released; at once if it is."""
        with self._hit:
            if not self.is_released:
                self._waiting.append(go_on)
                return
        go_on()

    def wait_until_hit(self, times: int = 1, seconds: float = 10.0) -> None:
        """Block until it has struck so many requests; raises TimeoutError."""
        with self._hit:
            if not self._hit.wait_for(lambda: self.hits >= times, seconds):
                message = f"{self.kind} on {self.operation} struck {self.hits} requests, not {times}"
                raise TimeoutError(message)

    def _strike(self) -> None:
        with self._hit:
            self.hits += 1
            if self.times is not None:
                self.times -= 1
            self._hit.notify_all()


class Faults:
    """The faults ordered and not yet spent, oldest first. May be used from any thread."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, operation: str, kind: FaultKind, times: int | None = 1) -> Fault:
        """Order a fault for the next ``times`` requests of an operation (None = all)."""
        fault = Fault(operation, kind, times)
        with self._lock:
            self._faults.append(fault)
        return fault

    def take(self, operation: str) -> Fault | None:
        """Return the fault that strikes this request, spending one of its times."""
        with self._lock:
            for fault in self._faults:
                if fault.times != 0 and (fault.operation == operation or _is_any(fault.operation, operation)):
                    fault._strike()
                    return fault
        return None

    def heal(self) -> None:
        """End every fault, and let what hangs go on."""
        with self._lock:
            faults, self._faults = self._faults, []
        for fault in faults:
            fault.times = 0
            fault.release()


def _is_any(ordered: str, operation: str) -> bool:
    return ordered == "*" and operation != "imds"
