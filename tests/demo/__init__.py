"""`make demo`: natproxy at work in a minute, without root and without an AWS account.

- __main__.py  the command: options, and how it ends
- story.py     what happens, chapter by chapter: read this first
- stage.py     what it plays on: a small AWS with real caches, natproxy as a process of its own, the clients
- laptop.py    a developer's laptop: the real `natproxy connect`
- processes.py natproxy's commands as processes
- client.py    a client that asks its port all the time and notices how long there was no answer
- words.py     PURE  natproxy's log in plain words
"""
