"""Operating points on clips: what a stream costs and loses."""
