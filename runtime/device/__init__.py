"""The device: the loop over a camera's frames, its engine, its link. No torch."""
