"""Model families as data, one decoder that reads it, and the loading of weights."""
