"""The device: the loop over a camera's frames, its engine, its link. No torch."""

import tidesplit.runtime.wire  # noqa: F401  # first, because it sets how much gRPC prints
