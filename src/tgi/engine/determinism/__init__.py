"""Proof that a request's answer does not depend on what else the engine does: `tgi verify-determinism`."""
