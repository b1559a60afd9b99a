"""Speech that our model makes: content-decoupled samples of a corpus, and the rows of a table. Only this part knows the model."""
