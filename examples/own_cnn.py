"""A CNN of your own, from torch code and pictures to a folder that every command takes:

    python examples/own_cnn.py mine
    tidesplit prepare examples.own_cnn:net --weights mine/net.safetensors --pictures mine/pictures --px 64 --out my_cnn
    tidesplit train --profile my_cnn --server this-machine --trace lte.csv --out out/my_policy

The first command stands for what you have already: it draws pictures of three classes, and trains the net on them.
`prepare` changes no weight. It finds the net's cuts and trains a bottleneck at each, by the net's own answers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

PX, CLASSES, PICTURES, STEPS = 64, ("checks", "columns", "rows"), 120, 120


def net() -> nn.Module:
    """The net, as its author wrote it: NET of `tidesplit prepare`. It takes pictures ``[B, 3, 64, 64]``."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, len(CLASSES)))


def draw(kind: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A noisy picture ``[64, 64, 3]`` of a class."""
    y, x = np.mgrid[:PX, :PX] // int(rng.integers(3, 9)) % 2
    pattern = (x ^ y, x, y)[kind][:, :, None] * rng.uniform(60, 180, 3)
    noisy: NDArray[np.float64] = pattern + rng.normal(40, 20, (PX, PX, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def normalised(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures ``[B, 64, 64, 3]`` as `--preprocess imagenet` has them, ``[B, 3, 64, 64]``."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(pictures) / 255 - mean) / std).permute(0, 3, 1, 2)


def main() -> None:
    """Draw the pictures, train the net, and write both."""
    if len(sys.argv) != 2:
        raise SystemExit("python examples/own_cnn.py FOLDER expected: the folder to write")
    folder, rng = Path(sys.argv[1]), np.random.default_rng(0)
    torch.manual_seed(0)
    kinds = np.arange(PICTURES) % len(CLASSES)
    pictures = np.stack([draw(int(kind), rng) for kind in kinds])
    for number, (kind, picture) in enumerate(zip(kinds, pictures, strict=True)):
        path = folder / "pictures" / CLASSES[kind] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    model, inputs, labels = net(), normalised(pictures), torch.from_numpy(kinds)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(STEPS):
        some = torch.randint(PICTURES, (32,))
        loss = cross_entropy(model(inputs[some]), labels[some])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    save_file(model.state_dict(), folder / "net.safetensors")
    print(f"{PICTURES} pictures and the net are in {folder}; its last loss was {loss.item():.3f}")


if __name__ == "__main__":
    main()
