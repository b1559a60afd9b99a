"""Where recordings are cut: quiet places near an edge, and utterances joined into longer clips."""
