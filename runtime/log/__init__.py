"""Records of frames, and the outputs that they go to: JSON lines, terminal, TensorBoard, systemd."""
