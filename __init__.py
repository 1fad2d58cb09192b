"""Tidesplit: reinforcement-learning control of split CNN inference over a mobile uplink."""
