"""The developers' CA: a directory on the operator's machine, never on the instance that faces the Internet.

Reading order::

    terms         who and what certificates may be for, and how long they may be valid
    certificates  what is signed: certificates and the revocation list
    index         all that was ever signed
    listing       how it all stands today
    bundle        what a developer is handed
    unpacking     I/O: that read again, on the developer's computer
    files         I/O: files written whole, and the lock
    handout       I/O: where a bundle goes
    authority     I/O: the directory; init, issue, revoke, renew the server's, sign the list, list

Two orders hold everywhere, so that a crash between any two writes loses nothing: a certificate is in the index before
anybody can have it, and a revocation is in the index before the list that says it is signed.

Pure, but for those marked I/O.
"""
