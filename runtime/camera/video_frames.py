"""Video through PyAV (the extra `video`): the decoder of a stream of H.264, and recordings."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from PIL import Image

from tidesplit.compression.codec.pixels import MAX_PIXELS, Pixels, load_square, squash
from tidesplit.runtime.camera.picture import Picture, Say, Skipped, SourceError

if TYPE_CHECKING:
    import av

DAMAGED = 60  # pictures after a broken one are built on it, up to the next key picture or so many
LIMITS = {"max_pixels": str(MAX_PIXELS)}
RATE_OFF = 0.03  # of a recording, from the loop's


class DecodedFrame:
    """A decoded video frame. Its length is that of its pixels in memory, in bytes."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._frame = frame

    def __len__(self) -> int:
        return self._frame.width * self._frame.height * 3 // 2

    def square(self, px: int, crop: float = 0.0) -> Pixels:
        """Pixels `[px, px, 3]`, upright. `crop`: see `squash`."""
        image: Image.Image = self._frame.to_image()  # type: ignore[no-untyped-call]
        turns = round(self._frame.rotation / 90) % 4
        return squash(image.rotate(90 * turns, expand=True) if turns else image, px, crop)


def square(data: bytes | DecodedFrame, px: int, crop: float = 0.0) -> Pixels:
    """A shot's data as pixels `[px, px, 3]`. `crop`: see `squash`."""
    return data.square(px, crop) if isinstance(data, DecodedFrame) else load_square(io.BytesIO(data), px, crop)


def pyav(source: str) -> Any:
    """The module. `source` is what needs it."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise SourceError(f"{source} needs PyAV: pip install 'tidesplit[video]'") from error
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's own lines on each damaged packet
    return av


class H264Decoder:
    """Decodes the pictures of an H.264 stream in their order, each at once."""

    def __init__(self, skipped: Skipped) -> None:
        self._av, self._skipped = pyav("H.264"), skipped
        self._context = self._av.CodecContext.create("h264", "r")
        self._context.thread_count = 1  # threads of frames would each hold one back
        self._context.flags |= self._av.codec.context.Flags.low_delay
        self._context.options = LIMITS
        self._came_s: dict[int, float] = {}
        self._count = self._damaged = 0

    def __call__(self, unit: bytes, came_s: float) -> list[tuple[DecodedFrame, float]]:
        """Frames that are complete now, and when their last bytes came."""
        packet = self._av.Packet(unit)
        packet.pts = self._count
        self._came_s[self._count] = came_s
        self._came_s.pop(self._count - DAMAGED, None)  # of a picture that never became a frame
        self._count += 1
        try:
            frames = self._context.decode(packet)
        except self._av.error.FFmpegError as error:
            self._skip(error.strerror)
            return []
        whole = [(frame, self._came_s.pop(frame.pts, came_s)) for frame in frames]
        return [(DecodedFrame(frame), when_s) for frame, when_s in whole if self._sound(frame)]

    def _skip(self, reason: str) -> None:
        self._damaged = DAMAGED
        self._skipped("a picture of the stream", reason)

    def _sound(self, frame: av.VideoFrame) -> bool:
        """False where parts are missing that the decoder has made up, here or in a picture that this one builds on."""
        if frame.is_corrupt:
            self._skip("parts of it are missing")
            return False
        self._damaged = 0 if frame.key_frame else max(0, self._damaged - 1)
        if self._damaged:
            self._skipped("a picture of the stream", "it builds on a broken one")
        return not self._damaged


def recording(
    path: str, px: int, fps: float, skipped: Skipped, say: Say, crop: float = 0.0
) -> Iterator[Picture]:  # fmt: skip
    """Every picture of a video file. A rate that is not `fps` is said. `crop`: see `squash`."""
    module, count = pyav(f"the video {path}"), 0
    try:
        with module.open(path) as container:
            if not container.streams.video:
                raise SourceError(f"{path} holds no video")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.options = LIMITS
            if (rate := float(stream.average_rate or fps)) and abs(rate / fps - 1.0) > RATE_OFF:
                say(f"{path} has {rate:.4g} pictures a second, it is played at {fps:g}")
            for packet in container.demux(stream):
                for frame in frames_of(packet, skipped, path):
                    yield Picture(DecodedFrame(frame).square(px, crop), f"{path}:{count}")
                    count += 1
    except module.error.FFmpegError as error:
        raise SourceError(f"{path} is no video that can be read: {error.strerror}") from error
    if not count:
        raise SourceError(f"no picture of the video {path} can be decoded")


def frames_of(packet: Any, skipped: Skipped, name: str) -> list[av.VideoFrame]:
    """Decode a packet. Frames that cannot be decoded are counted."""
    try:
        frames: list[av.VideoFrame] = packet.decode()
    except pyav(name).error.FFmpegError as error:
        skipped(f"a picture of {name}", error.strerror)
        return []
    return frames
