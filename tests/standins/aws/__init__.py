"""The AWS stand-in: ElastiCache, STS, Secrets Manager, EC2 and instance metadata as real boto3 sees them.

    records.py     PURE   what the world consists of
    names.py       PURE   how ElastiCache names things
    state.py       PURE   the caches that exist, how they are made, their names in DNS
    world.py       PURE   AwsWorld: what happens to them: failover, replacement, growth, partial answers ...
    answers.py     PURE   the world as AWS describes it (botocore-shaped dicts)
    network.py     PURE   what is around the caches: this instance, security groups, Elastic IPs
    networkanswers.py PURE  the same as EC2 describes it
    operations.py  PURE   the operations served: filters, paging, not-found errors, denials
    render.py      PURE   AWS's query protocol from botocore's models; refuses what AWS does not know
    ec2operations.py PURE  those of EC2
    ec2protocol.py PURE   the protocol that EC2 speaks, likewise
    jsonprotocol.py PURE  the protocol that Secrets Manager speaks, likewise
    protocols.py   PURE   which service speaks which of them
    keys.py        PURE   credentials given out, signatures (SigV4) checked
    faults.py      PURE   what goes wrong on order
    imds.py        PURE   instance metadata, version 2
    http.py        I/O    HTTP with a hold on the raw connection
    server.py      I/O    AwsServer: all of it behind one port, in a thread of its own
    control.py            drives a stand-in in another process or namespace
    __main__.py           `python -m tests.standins.aws`: that process

Start at world.py for what can be built and done, at server.py for how to serve and watch it, at faults.py for what can
go wrong. tests/standins/cloud.py adds DNS and caches to it.
"""

from tests.standins.aws.control import ControlRefusedError, ask_control
from tests.standins.aws.faults import Fault, FaultKind
from tests.standins.aws.keys import AwsError
from tests.standins.aws.records import WorldError
from tests.standins.aws.render import RenderError
from tests.standins.aws.server import AwsServer, Call
from tests.standins.aws.world import MISSING, AwsWorld

__all__ = [
    "MISSING",
    "AwsError",
    "AwsServer",
    "AwsWorld",
    "Call",
    "ControlRefusedError",
    "Fault",
    "FaultKind",
    "RenderError",
    "WorldError",
    "ask_control",
]
