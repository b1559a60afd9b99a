"""What is trained: model, codec and tokenizer of a run."""
