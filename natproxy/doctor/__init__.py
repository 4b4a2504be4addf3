"""What is wrong, and how to mend it: ``natproxy doctor``. Nothing is changed, anywhere.

Reading order::

    findings       PURE what is found: check, verdict, evidence, mend
    checkup        I/O: every check in its order, what comes later with what was found earlier
    report         PURE the findings as text and as JSON

What AWS knows::

    environment    I/O: whose environment AWS is asked with
    environfile    PURE reads systemd's environment file
    account        I/O: the questions to AWS in their order, and what was learnt
    cloud          I/O: boto3: STS, ElastiCache, Secrets Manager, EC2
    instance       I/O: what this instance knows of itself
    identity       PURE credentials, region, clock
    permissions    PURE what is denied, and the statement that is missing
    caches         PURE ids and tags that lead to nothing, states
    expected       I/O: reads the state file: the routes that there should be
    groups         PURE what rules of security groups let through, and the commands that change them
    blame          PURE which group keeps this instance from a node
    entrance       PURE whether this instance's groups let clients in, and nobody else
    publicaddress  PURE whether what clients dial is this instance

What this host knows::

    targets        PURE what is to be dialled
    resolving      I/O: names -> addresses
    outcomes       PURE what may become of a dial
    reach          I/O: every name, every address
    spans          PURE port numbers as runs, and as a person writes them
    speech         I/O: what a port speaks
    certificates   PURE a certificate in few words
    nodetls        I/O: what every node speaks, and its certificate
    host           I/O: the checks of this host together
    ports          I/O: whether natproxy has, or could have, its ports
    listeners      I/O: who listens on this host
    leftovers      I/O: rules of the firewall that take connections away
    limits         I/O: descriptors, backlog, connection tracking, keepalive
    settings       I/O: the kernel's settings
    papers         I/O: natproxy's own certificate, key, CAs, lists
    readable       I/O: whether natproxy's own user may read a file, or change it
    advice         PURE what clients will run into

From a client's computer::

    fromclient     I/O: all of it
    handed         I/O: what a developer hands the doctor
    trying         I/O: tries ports as a client does
    sides          PURE whose fault it is that no connection comes about
    tlssides       PURE whose fault it is that an open port is of no use
"""
