import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.net.measure import recalibrate, wilson
from tidesplit.compression.phase.config import TrainConfig, parse
from tidesplit.compression.phase.parts import Average, ThreadChooser, cosine, load_checkpoint, mixup, save_checkpoint
from tidesplit.compression.pictures.labelled import CropStyle, batches, load_pictures, recoded, scale, split


@pytest.fixture
def folder(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / label).mkdir()
        for i in range(6):
            Image.fromarray(natural_picture(48, seed=i)).save(tmp_path / label / f"{i}.png")
    return tmp_path


def test_pictures_are_labelled_by_folder(folder):
    pictures = load_pictures(folder, 32)
    assert pictures.classes == ("ant", "bee")
    assert pictures.images.shape == (12, 32, 32, 3)
    assert pictures.labels.tolist() == [0] * 6 + [1] * 6


def test_a_folder_without_classes_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no class folders"):
        load_pictures(tmp_path, 32)


def test_batches_are_the_same_for_the_same_seed_and_differ_between_epochs(folder):
    pictures = load_pictures(folder, 32)
    style = CropStyle(px=16, codec_share=0.5)

    def epoch(seed, number):
        return [image for image, _ in batches(pictures, np.arange(12), 4, style, seed, number)]

    first, again, other = epoch(0, 0), epoch(0, 0), epoch(0, 1)
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert first[0].shape == (4, 3, 16, 16)
    assert float(first[0].abs().max()) <= 1.0


def test_abandoned_epoch_ends_its_thread(folder):
    pictures = load_pictures(folder, 32)
    stream = batches(pictures, np.arange(12), 2, CropStyle(px=16), 0, 0)
    next(stream)
    stream.close()


def test_split_holds_out_a_share_of_every_class():
    labels = np.repeat([0, 1, 2], [100, 10, 3])
    train, held = split(labels, 0.1, seed=0)
    assert np.bincount(labels[held]).tolist() == [10, 1, 1]
    assert sorted([*train, *held]) == list(range(113))


def test_recoding_keeps_shape_and_range():
    images = scale(np.stack([natural_picture(32)] * 2))
    coded = recoded(images, CropStyle(), np.random.default_rng(0))
    assert coded.shape == images.shape
    assert 0.0 < float((coded - images).abs().mean()) < 0.2


@pytest.mark.parametrize(
    ("right", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (95, 100, 0.8882, 0.9785)]
)
def test_wilson_known_answers(right, n, low, high):
    assert wilson(right, n) == pytest.approx((low, high), abs=2e-4)


def test_cosine_schedule():
    assert [round(cosine(s, 10, 2), 3) for s in (0, 1, 2, 6, 10)] == [0.5, 1.0, 1.0, 0.5, 0.0]


def test_mixup_targets_sum_to_one_and_are_plain_without_it():
    image, label = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    same, target = mixup(image, label, 3, 0.0, 0.0)
    assert torch.equal(same, image)
    assert torch.equal(target.argmax(1), label)
    _, soft = mixup(image, label, 3, 0.2, 0.1)
    torch.testing.assert_close(soft.sum(1), torch.ones(4))


def test_average_follows_the_weights():
    layer = nn.Linear(1, 1, bias=False)
    average = Average(list(layer.parameters()), 0.9)
    with torch.no_grad():
        layer.weight.fill_(3.0)
    for _ in range(200):
        average.update()
    with torch.no_grad():
        layer.weight.zero_()
    average.put()
    assert layer.weight.item() == pytest.approx(3.0, abs=1e-3)


def test_recalibration_finds_the_exact_statistics():
    images = np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3), dtype=np.uint8)
    norm = nn.BatchNorm2d(3)
    recalibrate(norm, [norm], images, size=4)
    torch.testing.assert_close(norm.running_mean, scale(images).mean(dim=(0, 2, 3)), rtol=1e-2, atol=1e-2)
    assert not norm.training
    assert norm.momentum == 0.1


def test_checkpoint_round_trip(tmp_path):
    save_checkpoint(tmp_path / "a" / "x.pt", step=3, weight=torch.ones(2))
    state = load_checkpoint(tmp_path / "a" / "x.pt")
    assert state["step"] == 3
    assert torch.equal(state["weight"], torch.ones(2))


@pytest.mark.parametrize(("others", "expected"), [(0.0, 4), (0.2, 4), (0.9, 3), (2.0, 2), (9.0, 1), (None, 4)])
def test_thread_chooser_leaves_the_cores_that_others_use(others, expected):
    clock = {"now": 0.0}
    chooser = ThreadChooser(
        4,
        1.0,
        lambda: clock["now"],
        lambda: None if others is None else clock["now"] * (others + 3),
        lambda: clock["now"] * 3,
    )
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        clock["now"] = 2.0
        chooser.step()
        assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


def test_command_line_is_made_from_the_config():
    config = parse(["--data", "d", "--px", "96", "--resume", "--minutes", "1.5"])
    assert config == dataclasses.replace(TrainConfig(), data="d", px=96, resume=True, minutes=1.5)
    assert config.folder == Path("runs/cnn")
