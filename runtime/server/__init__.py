"""The server, which is also the middle server of three tiers."""
