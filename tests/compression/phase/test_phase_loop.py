"""The loop of the training phases, on one small layer."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from tidesplit.compression.codec.pixels import natural_picture
from tidesplit.compression.phase import phase_loop as phases
from tidesplit.compression.phase.config import ConfigError, TrainConfig
from tidesplit.compression.phase.parts import by_steps
from tidesplit.compression.phase.phase_loop import Phase, TrainingJob
from tidesplit.compression.pictures.labelled import CropStyle, Pictures

EPOCHS, EPOCH_STEPS = 3, 4


@pytest.fixture
def job(tmp_path):
    pictures = Pictures(np.stack([natural_picture(16, seed=i) for i in range(9)]), np.arange(9) % 3, ("a", "b", "c"))
    config = dataclasses.replace(TrainConfig(), out=str(tmp_path), batch=2)
    return TrainingJob(pictures, np.arange(9), config, torch.device("cpu"))


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(3, 3)


def phase_of(job, layer, **more):
    steps = EPOCHS * EPOCH_STEPS
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    fixed = {"steps": steps, "optimizer": optimizer, "schedule": by_steps(steps, 2), "decay": 0.5, "kept": layer}
    return Phase(job, "layer", groups=[list(layer.parameters())], **(fixed | more))


def train(phase, layer, style=lambda _: CropStyle(px=8), stop_at=None, **more):
    """The side of each step's pictures."""
    sides = []
    for image, label in phase.batches(0, style, **more):
        if phase.done == stop_at:
            return sides
        loss = nn.functional.cross_entropy(layer(image.mean(dim=(2, 3))), label)
        loss.backward()
        sides.append(image.shape[3])
        phase.step({"loss": loss.item()})
    phase.finish()
    return sides


@pytest.mark.parametrize("by_epoch", [True, False])
def test_a_stopped_phase_goes_on_as_if_it_had_not(job, layer, by_epoch, monkeypatch):
    """By epochs to the bit. Otherwise the order of pictures is a new one, so only the number of steps is the same."""
    monkeypatch.setattr(phases, "SAVE_S", 0.0)
    start = {name: value.clone() for name, value in layer.state_dict().items()}
    assert len(train(phase_of(job, layer), layer, by_epoch=by_epoch)) == EPOCHS * EPOCH_STEPS
    whole = layer.weight.detach().clone()
    (job.config.folder / "layer.pt").unlink()
    layer.load_state_dict(start)
    train(phase_of(job, layer), layer, stop_at=6, by_epoch=by_epoch)
    layer.load_state_dict(start)
    again = phase_of(dataclasses.replace(job, config=dataclasses.replace(job.config, resume=True)), layer)
    left = EPOCHS * EPOCH_STEPS - again.done
    assert left == (8 if by_epoch else 6)
    assert len(train(again, layer, by_epoch=by_epoch)) == left
    assert torch.equal(layer.weight, whole) == by_epoch


@pytest.mark.parametrize(("by_epoch", "expected"), [(True, [8] * 8 + [16] * 4), (False, [8] * 6 + [16] * 6)])
def test_crops_change_with_an_epoch_or_at_once(job, layer, by_epoch, expected):
    def style(share):
        return CropStyle(px=8 if share < 0.5 else 16)

    assert train(phase_of(job, layer), layer, style, by_epoch=by_epoch) == expected


def test_the_average_is_put_in_place_and_without_a_decay_the_last_weights_stay(job, layer):
    phase = phase_of(job, layer, decay=0.0, kept=None)
    train(phase, layer)
    assert torch.equal(phase.average.weights[0], layer.weight)
    assert not (job.config.folder / "layer.pt").exists()


def test_a_phase_by_time_ends(job, layer):
    phase = phase_of(job, layer, minutes=1e-4)
    train(phase, layer)
    assert phase.share >= 1.0


def test_a_phase_without_steps_does_nothing(job, layer):
    assert train(phase_of(job, layer, steps=0), layer) == []


def test_fewer_pictures_than_a_batch_are_refused(job, layer):
    few = dataclasses.replace(job, index=np.arange(1))
    with pytest.raises(ConfigError, match="1 training pictures received, at least one batch expected"):
        phase_of(few, layer)
