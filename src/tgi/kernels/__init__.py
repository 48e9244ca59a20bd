"""Programs, and the backends that run them."""
