"""Operating points: the profile file, and its columns as one chain of machines sees them. NumPy only."""
