"""Operating points: the profile file, and the columns that one chain of machines sees of it. NumPy alone."""
