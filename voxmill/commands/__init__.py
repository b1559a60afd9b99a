"""The commands by subject: project (doctor, models, demo), corpus, train, model."""
