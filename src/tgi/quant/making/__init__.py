"""Algorithms that make codes with a text to calibrate on: GPTQ, AWQ, and the layouts they are stored in."""
