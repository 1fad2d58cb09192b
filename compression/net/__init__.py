"""The slimmable CNN with a bottleneck at each cut, and its deployed ONNX models. Needs torch."""
