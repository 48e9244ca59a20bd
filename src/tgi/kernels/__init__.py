"""The arithmetic behind the Ops seam."""
