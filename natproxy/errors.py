"""Every error natproxy raises on purpose; foreign errors are mapped to these at the border. Pure."""

from __future__ import annotations

from dataclasses import dataclass


class NatproxyError(Exception):
    """Base of all; its text is fit to be shown to a user as it stands."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in the config file."""

    file: str
    line: int | None
    """1-based; None where no line can be named (the file cannot be read)."""
    path: str
    """Dotted path of the value, such as ``caches[0].ports``; empty for the file as a whole."""
    message: str

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


class ConfigError(NatproxyError):
    """The config file is wrong: ``problems`` holds every mistake found, in file order."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class DiscoveryError(NatproxyError):
    """AWS could not be asked. ``reason`` is one of ``model.DiscoveryFailure``."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class StateError(NatproxyError):
    """The state file cannot be read, is of a newer version, or cannot be written."""


class TlsError(NatproxyError):
    """A certificate, key, CA or revocation list cannot be used; the text names the file and what is wrong with it."""


class PkiError(NatproxyError):
    """The developers' CA cannot do what it was asked for."""


class ReleaseError(NatproxyError):
    """A port cannot be released: the name is unknown, or its node still exists."""


class NetfilterError(NatproxyError):
    """The kernel's rules could not be read; the text says where it failed, and what to do."""


class DoctorError(NatproxyError):
    """What the doctor was given to look with (a bundle, a list of ports) cannot be used."""


class ImportingError(NatproxyError):
    """The kernel's rules could not be made into a config."""


class BundleError(NatproxyError):
    """A developer's bundle cannot be used on this computer, or not now."""


class PortalError(NatproxyError):
    """The portal gave no directory that can be used: it let nobody in, or is none."""


class PortalUnreachableError(PortalError):
    """The portal could not be reached, or the one that was reached cannot be trusted."""


class ControlError(NatproxyError):
    """The daemon could not be reached, or did not answer as a natproxy does."""


def unforeseen(error: Exception) -> str:
    """Say in one line what was raised, and where: for a log that has no room for a traceback."""
    where = error.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = "" if where is None else f" ({where.tb_frame.f_code.co_qualname}, line {where.tb_lineno})"
    return f"{type(error).__name__}: {error}{place}"


class ChannelError(NatproxyError):
    """The other process broke the message framing, or is gone."""
