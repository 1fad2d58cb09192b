"""The observation of one device: equal to the simulator's in every bit, at a fraction of its time."""
