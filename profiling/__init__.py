"""What it costs: operating points of a CNN, their accuracy and bytes, and the time they take on a machine."""
