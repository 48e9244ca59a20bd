"""Models that no family describes, computed by transformers' own code with our batching, and where it can be our cache.

The only part of the engine that imports transformers, and only where such a model is served.
"""
