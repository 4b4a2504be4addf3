"""Stand-ins for what natproxy talks to: AWS, DNS and caches. Used by the tests and by the demo; none of it needs root.

- zone.py    PURE  the names: what each answers, and whose turn it is where answers rotate
- aws/             the AWS stand-in: a pure world (world.py), rendered and served to real boto3 over HTTP
- dns.py     I/O   a DNS server over UDP and TCP that serves a Zone
- caches.py  I/O   real redis-server and memcached, or fakeredis and small_memcached.py, on an address of one's own
- clusternode.py   one node of a real Redis cluster, and rediscluster.py, which forms, fails over and reshards clusters
- certificates.py PURE  authorities, certificates, revocation lists: good ones and every kind of bad one
- resp.py    I/O   questions to a cache, on a connection of their own
- echo.py    I/O   listeners that only echo: nodes for tests with hundreds of them
- fleet.py   I/O   one running cache for each node of a world
- cloud.py   I/O   all of it in one: `with Cloud() as cloud: cloud.replication_group("my-redis")`
- loop.py    I/O   an asyncio loop in a thread, so that stand-ins serve sync tests, async tests and the demo alike

Start at cloud.py.
"""
