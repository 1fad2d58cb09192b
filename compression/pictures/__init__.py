"""Labelled pictures to train on and to measure with."""
