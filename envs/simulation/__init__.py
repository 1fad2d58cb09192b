"""Episodes of the world: scenarios, random courses, many lanes side by side."""
