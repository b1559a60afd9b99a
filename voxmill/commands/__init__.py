"""The commands by subject: project (doctor, models, demo), corpus, describe, train, model."""
