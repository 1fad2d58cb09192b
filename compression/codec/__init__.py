"""What crosses the link, as bytes. NumPy and Pillow alone: device and server run it."""
