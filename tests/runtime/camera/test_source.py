import io
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from tidesplit.runtime.camera.picture import Skipped
from tidesplit.runtime.camera.source import SourceError, ahead, drawn, folder, of_arrays, source, stream


def jpeg(shade, size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "jpeg")
    return file.getvalue()


def test_a_folder_repeats_and_its_subfolders_are_classes(tmp_path):
    for name, shade in (("cat/1.jpg", 10), ("dog/2.jpg", 200)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(jpeg(shade))
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    got = list(islice(folder(tmp_path, 32), 3))
    assert [(p.name, p.label) for p in got] == [("cat/1.jpg", "cat"), ("dog/2.jpg", "dog"), ("cat/1.jpg", "cat")]
    assert got[0].pixels.shape == (32, 32, 3)
    assert abs(int(got[1].pixels.mean()) - 200) < 3


@pytest.mark.parametrize(
    ("files", "sentence"),
    [({}, "holds no pictures"), ({"a.jpg": b"broken"}, "none of the 1 files")],
)
def test_a_folder_without_pictures_is_a_users_mistake(tmp_path, files, sentence):
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=sentence):
        next(folder(tmp_path, 32))
    with pytest.raises(SourceError, match="is not a folder"):
        folder(tmp_path / "missing", 32)


def test_a_stream_of_jpegs_is_cut_at_its_frames_whatever_the_reads():
    class Dribble(io.BytesIO):
        def read(self, size=-1):
            return super().read(7)

    frames = [jpeg(shade) for shade in (0, 90, 255)]
    for file in (io.BytesIO, Dribble):
        got = list(stream(file(b"noise" + b"".join(frames)), 16))
        assert [float(np.mean(p.pixels)) for p in got] == pytest.approx([0, 90, 255], abs=3)
        assert [p.name for p in got] == ["stream-0", "stream-1", "stream-2"]


def test_the_middle_of_a_picture_is_taken_from_every_source(tmp_path):
    """Its edges are black, its middle is white."""
    array = np.zeros((48, 96, 3), np.uint8)
    array[8:40, 32:64] = 255
    Image.fromarray(array).save(tmp_path / "a.png")
    data = io.BytesIO()
    Image.fromarray(array).save(data, "jpeg", quality=95)
    for crop, white in ((0.5, True), (0.0, False)):
        shown = [
            next(source(str(tmp_path), 16, 10, Skipped(), crop=crop)),
            next(stream(io.BytesIO(data.getvalue()), 16, crop=crop)),
            next(of_arrays([array], 16, crop)),
        ]
        assert [bool(picture.pixels.min() > 240) for picture in shown] == [white] * 3


def test_ahead_keeps_order_and_raises_errors_where_they_belong():
    assert [p.name for p in islice(ahead(drawn(16)), 3)] == ["drawn-0", "drawn-1", "drawn-2"]

    def fails():
        yield next(drawn(16))
        raise SourceError("gone")

    pictures = ahead(fails())
    assert next(pictures).name == "drawn-0"
    with pytest.raises(SourceError, match="gone"):
        next(pictures)
