"""How good a controller is: episodes, metrics with intervals, the clairvoyant bound, tables and figures."""
