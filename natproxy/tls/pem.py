"""Takes PEM apart: the blocks of one kind, everything around them left out. Pure."""

from __future__ import annotations

import re

_CERTIFICATE = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----[ \t]*\r?\n[^-]*-----END (?:X509 )?CERTIFICATE-----")
_REVOCATION_LIST = re.compile(rb"-----BEGIN X509 CRL-----[ \t]*\r?\n[^-]*-----END X509 CRL-----")
_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----[ \t]*\r?\n(?:[^-]|-(?!----))*-----END \1-----")
"""Old encrypted ones have lines with a hyphen before the key."""


def certificates(pem: bytes) -> list[bytes]:
    """Return the certificates in it, each as a PEM block that ends in a newline."""
    return [match[0] + b"\n" for match in _CERTIFICATE.finditer(pem)]


def revocation_lists(pem: bytes) -> list[bytes]:
    """Return the revocation lists in it."""
    return [match[0] + b"\n" for match in _REVOCATION_LIST.finditer(pem)]


def keys(pem: bytes) -> list[bytes]:
    """Return the private keys in it, encrypted ones too."""
    return [match[0] + b"\n" for match in _KEY.finditer(pem)]


def is_encrypted(key: bytes) -> bool:
    """Tell whether a private key's block needs a passphrase."""
    return b"BEGIN ENCRYPTED PRIVATE KEY" in key or b"Proc-Type: 4,ENCRYPTED" in key
