"""What is said of a camera against what is true: a run whose figures are known."""

import io

import numpy as np
import pytest
from PIL import Image

from tidesplit.benchmarks.cameras import Case, judged, late_s, plan_of
from tidesplit.benchmarks.stand_in_camera import NUMBERS, Moment, jpegs, number_in
from tidesplit.compression.codec.pixels import load_square
from tidesplit.envs.world.vocabulary import Demand
from tidesplit.runtime.camera.mjpeg import Cutter
from tidesplit.runtime.log.record import Record


def test_a_picture_shows_its_number_when_it_is_small():
    stills = jpegs(3)
    assert [number_in(load_square(io.BytesIO(still), 48)) for still in stills] == [0, 1, 2]


def record(frame, arrival_s, waited_s, age_s, skipped):
    made = Record(frame, "", None, Demand(fps=30.0), "", 0, {}, np.ones(1, bool), {}, answered_by="server")
    made.arrival_s, made.waited_s, made.picture_age_s, made.pictures_skipped = arrival_s, waited_s, age_s, skipped
    return made


def test_ages_and_skipped_pictures_are_held_against_those_of_the_camera():
    wrote = [(NUMBERS - 1, 10.0), (-1, 10.1), (NUMBERS, 10.2), (NUMBERS + 1, 10.3)]
    records = [record(0, 0.0, 0.004, 0.004, 0), record(1, 0.301, 0.010, 0.015, 2)]
    found = judged(records, [NUMBERS - 1, 1], wrote, 10.0)
    assert (found["frames"], found["missed"], found["skipped"]) == (2, 0, {"log": 2, "true": 1})
    assert found["age_ms"]["max"] == pytest.approx(11.0)
    assert found["age_error_ms"]["max"] == pytest.approx(4.0)
    assert found["arrival_error_ms"]["max"] == pytest.approx(1.0)
    assert found["without_age"] == found["number_unreadable"] == 0


def test_what_the_camera_writes():
    data = io.BytesIO()
    Image.new("RGB", (16, 16)).save(data, "jpeg")
    stills = [data.getvalue()] * NUMBERS
    plain = plan_of(Case("", 10.0, seconds=1.0, pause=(0.45, 0.3)), stills, [])
    assert [moment.number for moment in plain] == [0, 1, 2, 3, 4, 8, 9]
    cutter, garbage = Cutter(), plan_of(Case("", 20.0, seconds=1.0, kind="garbage"), stills, [])
    whole = [one for moment in garbage for one in cutter.feed(moment.data)]
    assert (len(whole), sum(moment.number < 0 for moment in garbage)) == (18, 2)


def test_lateness_of_the_camera_is_that_beyond_its_most_punctual_picture():
    plan = [Moment(0.1 * n, n, b"") for n in range(3)]
    assert late_s(plan, [(0, 7.0), (-1, 7.05), (1, 7.1), (2, 7.25)]) == pytest.approx([0.0, 0.0, 0.05])
