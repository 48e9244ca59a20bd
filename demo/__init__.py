"""Everything that makes the bundled demo model: its text, tokenizer, training and test.

Each corpus file owns one kind of text and offers ``turn(rng)``, which returns a
question and its answer.  ``corpus`` mixes the kinds into chats and plain
documents, ``tokenizer`` learns the vocabulary, ``train`` fits the weights,
``heldout`` writes the prompts that are never trained on and ``evaluate`` scores
a model on them.
"""
