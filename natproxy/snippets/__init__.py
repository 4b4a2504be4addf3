"""The lines that connect a client to a cache, for each client library. Pure.

Reading order::

    literals    text -> a literal of the language, whatever is in it
    scene       a cache's routes -> what a client has to know of them
    shell       redis-cli, openssl, telnet, natproxy connect
    python      redis-py, valkey-glide, pymemcache, django-elastipymemcache, emcache
    javascript  ioredis, node-redis, memcached-elasticache
    java        Lettuce
    golang      go-redis
    remarks     what there is to know whichever client it is
    catalogue   which clients a cache is for; snippets(), connect_snippets(), as_text()
"""

from natproxy.snippets.catalogue import CLIENTS, CONNECT, as_text, connect_snippets, snippets
from natproxy.snippets.scene import BUNDLE, Files
from natproxy.snippets.shell import bundle_of

__all__ = ["BUNDLE", "CLIENTS", "CONNECT", "Files", "as_text", "bundle_of", "connect_snippets", "snippets"]
