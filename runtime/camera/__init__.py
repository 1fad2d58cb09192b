"""Where pictures come from: folders, a camera's stream, drawn test pictures. Decoded and counted."""
