"""Minutes of everything at once on a real cluster behind natproxy: random clients that come and go, nodes that change.

``run.py`` has the course of it, ``verdict.py`` what must hold at its end.
"""
