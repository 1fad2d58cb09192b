"""What device and server say to each other: messages, answers, security. Values and bytes, no sockets."""
