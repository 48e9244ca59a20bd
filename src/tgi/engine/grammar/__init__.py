"""Answers that fit a grammar: compiling beside the step loop, what each sequence may say next, masks of logits."""
