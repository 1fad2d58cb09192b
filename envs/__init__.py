"""The world: traces, link arithmetic, the frame pipeline, and the Gymnasium environments over them."""
