"""Tidesplit: reinforcement-learning control of split CNN inference over a mobile uplink."""

__version__ = "0.1.0"
