"""DNAT rules -> a config that keeps every port where it was.

account   I/O: which nodes there are, and where their names lead
places    PURE an address -> the node or endpoint that has it
wishes    PURE rules -> which port should lead where, and what is left as it is
ranges    PURE ranges of ports that give each node just the port it had
planning  PURE all of it -> entries and static routes
writing   PURE those -> YAML, JSON, and what the operator is told
proof     I/O: the printed config is read back, and has to do what was promised
"""
