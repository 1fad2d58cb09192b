"""Fits that need a CNN's weights and some training pictures, and no label."""
