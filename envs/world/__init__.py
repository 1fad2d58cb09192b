"""The world as pure functions, shared by simulator and device: demand, pipeline, observation. NumPy alone."""
