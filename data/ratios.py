"""The channel ratios. Every slimmable CNN is trained at each of them, and the wire format numbers them in this order.

Models and codec may not import each other, so the one definition is here.
"""

RATIOS = (0.25, 0.5, 0.75, 1.0)
