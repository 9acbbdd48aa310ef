"""The one exception of these tools."""


class Failure(Exception):
    """Something cannot be made. The text says how to fix that."""
