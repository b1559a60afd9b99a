"""Errors of this package whose message is one line for users."""


class EvaluationError(ValueError):
    """A list, a run folder or a system cannot be used; the message states what to do."""


class NotMeasuredError(RuntimeError):
    """A metric cannot be measured now, such as for lack of a key or a budget; the message states what to do. The run continues."""


class SpeakError(RuntimeError):
    """A system could not speak one text. The take counts as failed and the run continues."""

    status = "error"


class TimedOutError(SpeakError):
    """A system gave no answer within the time limit."""

    status = "timeout"
