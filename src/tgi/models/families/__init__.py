"""One file for each lineage of models: how their config.json is read, and where they keep their tensors."""
