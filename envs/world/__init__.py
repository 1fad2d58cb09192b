"""The world as pure functions on NumPy arrays, shared by simulator and device: demand, pipeline, observation."""
