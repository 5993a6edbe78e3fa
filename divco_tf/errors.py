"""The one error that users are meant to see."""


class InputError(ValueError):
    """Bad input, told in one line: what was wrong, "Received: ...", and what would work.

    The command-line tools print the line and exit with status 2; anything else that is raised is a
    bug of ours, and keeps its traceback.
    """


class RunError(RuntimeError):
    """A run that cannot go on, told in one line: what happened, and where the last good state lies.

    The command-line tools print the line and exit with status 1.
    """
