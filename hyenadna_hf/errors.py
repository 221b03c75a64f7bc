"""Errors that are the user's to mend."""


class InputError(ValueError):
    """Bad input, in one sentence that names what is wrong and the way out. The command line prints just that."""
