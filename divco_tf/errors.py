"""The errors that users are meant to see."""


class InputError(ValueError):
    """Bad input, told in one line: what was wrong, "Received: ...", and what would work.

    The command-line tools print the line and exit with status 2; anything else that is raised is a
    bug of ours, and keeps its traceback.
    """


class RunError(RuntimeError):
    """A run that cannot go on, told in one line: what happened, and where the last good state lies.

    The command-line tools print the line and exit with status 1.
    """


class Preempted(RunError):
    """SIGTERM, a job queue's warning, ended the run between two steps, after a checkpoint.

    The command-line tools print the line and exit with status 75, "try again later" (EX_TEMPFAIL of sysexits.h).
    """
