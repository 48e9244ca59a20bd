"""Several servers behind one address: which replica answers a request, and the proxy that brings it there.

The index, the choice and the router import neither torch nor Ray, so that a simulator runs the same code.
"""
