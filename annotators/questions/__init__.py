"""What is asked of a model and how its answer is read: prompt, schema for each dialect, model profiles, parsing."""
