"""What HTTP and offline use share: validation, tokenizer, chat template, text, the engine's client."""
