"""TLS without sockets: contexts, who a certificate is, which are revoked, why a handshake failed, what the files hold.

Reading order:

    pem          PURE a file's PEM blocks
    contexts     a server's and a node leg's ssl.SSLContext, from PEM in memory
    first_bytes  PURE whether a client begins with TLS, and what it speaks where it does not
    failures     PURE what ssl raised -> why the handshake failed, and a line for the log
    identity     PURE a client's certificate -> its names and serial number
    revocation   PURE revocation lists -> who is revoked, and which list is out of date
    chains       PURE whether certificates, key, CAs and revocation lists fit together
    expiry       PURE when each of them expires, and what the server's certificate does not name
    material     I/O: reads the files

The first four do without ``cryptography``: a worker that asks nobody for a certificate does not load it. This package
itself imports nothing.
"""
