"""What exists: AWS is asked (elasticache), its answers are read with suspicion (parse), names are resolved (names).

    fields       PURE one structure of an answer, read with suspicion
    caches       PURE one structure of an answer -> a Cache
    parse        PURE all answers of a round -> a Snapshot of what the config selects
    failures     PURE what boto3 raised -> why AWS could not be asked
    session      I/O: boto3 sessions and clients: region, role, renewal, cutting a call short
    tags         I/O: ListTagsForResource, remembered
    secret       I/O: one secret of Secrets Manager
    asking       I/O: one round of questions to AWS, in the thread that may block
    elasticache  I/O: boto3 in a thread of its own -> raw answers
    names        I/O: DNS -> address sets, refreshed

boto3 is imported, and used, in the discovery thread only.
"""
