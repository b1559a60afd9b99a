"""What is known: the corpus format, the pretrained weights, the languages, and how a corpus is looked at."""
