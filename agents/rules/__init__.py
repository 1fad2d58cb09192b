"""Controllers that need no training run: static points, look-up, MPC, LinUCB, JMDC and CNNPC."""
