"""Judging controllers: episodes, metrics with intervals, the clairvoyant bound, tables and figures."""
