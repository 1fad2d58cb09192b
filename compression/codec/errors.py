"""The error of a payload that cannot be decoded."""


class PayloadError(ValueError):
    """The bytes received are no payload of this decoder. The fault is the sender's or the link's, never ours."""
