"""CNNPC's strategies (Yang et al., TPDS 2022) on its own kind of tables, solved exactly: see `__main__`."""
