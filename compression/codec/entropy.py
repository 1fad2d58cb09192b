"""Entropy stage without tables: zstd where it saves bytes, otherwise the bytes as they are."""

from __future__ import annotations

import zstandard

from tidesplit.compression.codec.errors import PayloadError

RAW, ZSTD, TABLES, CHANGES = 0, 1, 2, 3  # TABLES: compression.codec.learned_entropy; CHANGES: compression.codec.memory
LEVEL = 19  # zstd's highest ordinary level: a payload below 10 KB takes well under a millisecond
_PARAMETERS = zstandard.ZstdCompressionParameters.from_level(
    LEVEL, write_content_size=True, write_checksum=False, write_dict_id=False, format=zstandard.FORMAT_ZSTD1_MAGICLESS
)


def deflate(body: bytes) -> tuple[int, bytes]:
    """The shorter form of `body`, with its method first."""
    packed = zstandard.ZstdCompressor(compression_params=_PARAMETERS).compress(body)
    return (ZSTD, packed) if len(packed) < len(body) else (RAW, body)


def inflate(method: int, data: bytes, size: int) -> bytes:
    """The `size` bytes that were deflated. No memory is allocated before the size in the frame is checked.

    Raises:
        PayloadError: `data` does not hold exactly so many bytes.
    """
    if method == RAW:
        if len(data) != size:
            raise PayloadError(f"expected {size} plain bytes, got {len(data)}")
        return data
    if method != ZSTD:
        raise PayloadError(f"unknown entropy method {method}")
    try:
        parameters = zstandard.get_frame_parameters(data, format=zstandard.FORMAT_ZSTD1_MAGICLESS)
        if parameters.content_size != size:
            raise PayloadError(f"expected a zstd frame of {size} bytes, its header says {parameters.content_size}")
        result = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS).decompress(
            data, max_output_size=size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise PayloadError(f"not a zstd frame: {error}") from error
    if len(result) != size:
        raise PayloadError(f"zstd frame held {len(result)} bytes, its header said {size}")
    return result
