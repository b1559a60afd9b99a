"""Content-decoupled samples: a voice and its delivery, synthesized with a text of other content."""
