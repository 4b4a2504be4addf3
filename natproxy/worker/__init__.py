"""The data path: accepts, dials and moves bytes; knows no AWS, no files and no asyncio.

Reading order: loop (the small epoll loop everything hangs on), leg (one socket of a relay), relay (two legs joined),
handshake and tlsleg (the same over TLS), credentials and sessions (what TLS goes by), dial (one connection to a node),
access (who may connect), listener (one port), connection (one client's life), process (a worker's main), reports (what
it tells), spread (how several share the connections).
"""
