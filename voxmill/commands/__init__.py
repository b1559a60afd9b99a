"""The commands by subject: project (doctor, models, demo), corpus, inspecting, describe, train, model."""
