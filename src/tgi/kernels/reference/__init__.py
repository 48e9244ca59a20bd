"""Programs in torch operations, on every device: the definition of correct."""
