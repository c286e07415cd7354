"""SFT, stage 1, stage 2 and their chain."""
