"""The server, which is also the middle server of three tiers."""

import tidesplit.runtime.wire  # noqa: F401  # first, because it sets how much gRPC prints
