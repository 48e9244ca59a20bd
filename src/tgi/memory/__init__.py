"""What a model takes, and the limits that fit a machine. Imports no torch."""
