"""The statement that audio is synthetic: what it says, how each file format holds it, and how it is read back."""
