"""What crosses the link: slimmable CNN parts, bottleneck, regions, quantizer, entropy stage, image codec."""
