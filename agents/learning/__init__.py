"""Training the policy: nets, imitation, PPO, monitoring, and writing the bundle that is deployed."""
