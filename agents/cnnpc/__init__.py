"""CNNPC (Yang et al., TPDS 2022): its strategies, solved exactly on tables in its own format. See `__main__`.

The tiers keep CNNPC's names in this folder: end (our device), edge (our middle server) and cloud (our server).
"""
