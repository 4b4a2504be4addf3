"""The laptop's side: what `natproxy connect` does. I/O: talks to a portal, listens on loopback."""
