"""CNN definitions in plain torch, and their trained weights."""
