"""The laptop's side: what ``natproxy connect`` does. I/O: talks to a portal, listens on loopback.

natproxy's data path runs here as it does in the daemon; what it serves comes from a portal's directory, not from AWS.

Reading order::

    papers      I/O: the developer's bundle, read and found good
    faults      why the portal cannot be had, in a plain sentence
    directory   I/O: the portal is asked what the certificate may use
    renewal     I/O: another bundle in its place, and the end of its certificate
    troubles    what is wrong, said once
    schedule    when the portal is asked again
    ports       which port on this computer stands for which of natproxy's
    routes      the directory and the local ports, as messages to the worker
    shown       the same as people and programs are shown it
    listening   I/O: ports on loopback
    serving     the difference between what runs and what should, carried out
    session     I/O: fetch, serve, look again; the life of the command

faults, troubles, schedule, ports, routes and shown are pure. Nothing here needs Linux, AWS, or the
daemon's libraries.
"""
