"""The recipe that trains a CNN with all its operating points, one phase after another."""
