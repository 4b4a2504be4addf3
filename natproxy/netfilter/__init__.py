"""The kernel's rules that send a port elsewhere: read, understood, never changed.

model      PURE what such a rule matches, and where it leads
chains     PURE rules in the order in which a packet meets them
iptables   PURE the text of iptables-save -> Rules
nftables   PURE the JSON of nft -> Rules
reading    I/O: runs iptables-save and nft
"""

from natproxy.netfilter.iptables import parse_iptables_save
from natproxy.netfilter.model import DnatRule, Match, Rules, Span, Unread
from natproxy.netfilter.nftables import parse_nft
from natproxy.netfilter.reading import read_rules

__all__ = [
    "DnatRule",
    "Match",
    "Rules",
    "Span",
    "Unread",
    "parse_iptables_save",
    "parse_nft",
    "read_rules",
]
