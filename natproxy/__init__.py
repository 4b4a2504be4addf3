"""natproxy: reach ElastiCache from outside its VPC, on one stable port per node.

AWS says which nodes exist; pure code says which ports lead where; a small I/O shell makes it so and moves bytes.

Reading order, which is also the import rule (a module imports only from rooms above it in this list)::

    errors       every error natproxy raises on purpose
    model        PURE frozen data: nodes, snapshots, port map, routes, plans, outcomes
    messages     PURE what controller and workers say to each other
    documents    PURE the JSON that natproxy shows
    printable    PURE what comes from outside, fit to be shown
    channel      I/O: carries those messages, and sockets, over a Unix socket pair
    tasks        asyncio tasks with a name and an owner
    durable      I/O: what is written survives a power failure
    tls/         what both processes know of TLS: contexts, who a certificate is, why a handshake failed
    netfilter/   the kernel's rules that send a port elsewhere: read, never changed
    config       YAML -> a validated Config, or every mistake at once
    plan/        PURE what should be: ports, routes, changes, what is held back, which connections end
    discover/    what exists: elasticache (I/O, boto3), parse (PURE), names (I/O, DNS)
    worker/      I/O: accepts, dials and moves bytes; knows no AWS and no files
    snippets/    PURE the lines that connect each client library
    pages/       PURE the HTML that operators and developers are shown
    controller/  I/O: the one process that knows AWS, the file system and the world
    control      I/O: the commands' way to the daemon
    pki/         the developers' CA
    importing/   DNAT rules -> a config that keeps every port where it was
    tables       PURE the tables that the commands show
    doctor/      what is wrong, and how to mend it; changes nothing
    connect/     I/O: the laptop's side: a portal's routes, served on 127.0.0.1
    cli          the commands: the only place that prints or exits
"""

__version__ = "0.1.0"
