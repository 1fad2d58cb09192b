"""The policy and how it is trained: nets, imitation, PPO, the bundle that is deployed."""
