"""Who decides: the PPO policy, the rules it is compared with, and the clairvoyant programme that bounds them all."""
