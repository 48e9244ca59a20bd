"""The bundled demo model: weights, tokenizer and model card, no code."""
