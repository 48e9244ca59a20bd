"""GGUF: llama.cpp's files of a model, its configuration and its tokenizer. `file` reads them without trusting them."""
