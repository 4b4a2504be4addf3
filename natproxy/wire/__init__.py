"""What nodes say of addresses, rewritten to what clients can dial: bytes in, bytes out. Pure.

Replies are touched only where they carry an address that stands in the cache's own book (book.py); all else, and all
that is in doubt, goes on untouched. No byte of a reply opens a port or names a target.
"""
