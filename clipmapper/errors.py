"""The one exception for what the user can mend: a missing file, a malformed JSON, a checkpoint of another mapper."""


class UserError(Exception):
    """Something outside the program is wrong; the message is one line that names the thing and the mend.

    The command line prints the message and exits with status 1; no stack trace unless ``CLIPMAPPER_TRACE=1``.
    """
