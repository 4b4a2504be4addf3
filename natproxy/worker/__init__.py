"""The data path: accepts, dials and moves bytes; knows no AWS and no files, and but for inprocess no asyncio.

Reading order: loop (the small loop everything hangs on), polling (epoll; kqueue on macOS), leg (one socket
of a relay), relay (two legs joined), handshake and tlsleg (the same over TLS), credentials and sessions (what TLS goes
by), dial (one connection to a node), access (who may connect), listener (one port), connection (one client's life),
process (a worker's main), reports (what it tells), limits (of descriptors), spread (how several share the connections),
inprocess (one in a thread of another program, as ``natproxy connect`` runs it).
"""
