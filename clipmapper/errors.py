"""The exception for errors that the user can fix, such as a missing file, malformed JSON or an unfitting checkpoint."""


class UserError(Exception):
    """An error outside the program, whose message says in one line what is wrong and how to fix it.

    The command line prints the message and exits with status 1. It shows a stack trace only if ``CLIPMAPPER_TRACE=1``.
    """


def reason(error: Exception) -> str:
    """Return an error of a library as part of one line."""
    return " ".join(str(error).split())[:160] or type(error).__name__
