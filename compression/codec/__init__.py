"""Payloads of the link, as bytes. Device and server both run it, so it needs NumPy, Pillow and zstandard only."""
