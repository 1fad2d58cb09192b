"""What runs: edge loop, server, engine, link estimator, breaker, link emulator. No torch on the device."""
