"""The server, and the middle tier that passes frames on."""
