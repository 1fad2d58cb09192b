"""What can be wrong with a payload."""

__all__ = ["PayloadError"]


class PayloadError(ValueError):
    """The bytes received are not a payload this decoder can decode: the sender's or the link's fault, never ours."""
