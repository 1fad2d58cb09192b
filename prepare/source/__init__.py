"""What a preparation starts from: the net, its pre-processing, the pictures."""
