# The one exception that users of the package see.


class ShardwrightError(Exception):
    """Something about the input is wrong; the message says what was given, what is wrong, and what
    works.

    `code` is the exit status that the command line would give: 2 usage, 3 not supported, 4 does not
    fit, 5 file broken or from another version, 6 a chip failed or timed out, 7 results differ.
    """

    def __init__(self, message: str, code: int = 2):
        super().__init__(message)
        self.code = code
