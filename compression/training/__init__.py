"""The recipe that trains a CNN with all its operating points, phase by phase."""
