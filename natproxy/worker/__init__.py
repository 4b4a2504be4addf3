"""The data path: accepts, dials and moves bytes; knows no AWS, no files and no asyncio.

Reading order: loop (the small epoll loop everything hangs on), relay (two legs joined), dial (one connection to a
node), access (who may connect), listener (one port), connection (one client's life), process (a worker's main).
"""
