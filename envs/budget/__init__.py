"""Budgets of energy and data, and the prices by which they are met."""
