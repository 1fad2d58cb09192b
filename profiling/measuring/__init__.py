"""Accuracy, bytes and times of operating points, measured on pictures and on this machine."""
