"""The errors of a payload that cannot be decoded."""


class PayloadError(ValueError):
    """The bytes received are no payload of this decoder. The fault is the sender's or the link's, never ours."""


class ReferenceUnknownError(PayloadError):
    """A payload that is relative to codes or to a picture that the decoder does not have. A key would be decoded."""
