"""What every training phase shares: options, the loop, and parts of it."""
