"""The proxies that are measured, natproxy among them: each module turns the same list of ports into one's own config.

``bench.peers.catalogue`` runs them by name.
"""
