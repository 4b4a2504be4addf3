"""The one process that knows AWS, the file system and the world; it hands sockets and routes to the workers.

``documents`` and ``status`` are PURE; ``logs``, ``metrics``, ``statefile``, ``systemd`` and ``web`` each talk to one
thing outside; ``sockets``, ``children`` and ``workers`` own what runs; ``reconcile`` decides what should; ``daemon``
joins them all.
This package itself imports nothing, so that a command which only reads documents starts quickly.
"""
