"""What a user's mistake raises; the command line prints it and exits with 2."""


class UserError(Exception):
    """Say in one or two lines what is wrong, where it is, and what to write instead.

    Raise it for anything a user can mend: a path, a config value, a data row, a model folder. The command
    line prints the message without a stack trace and exits with code 2. Faults of our own stay ordinary exceptions.
    """
