"""Episodes of the world: scenarios, random courses, and many lanes in one batch."""
