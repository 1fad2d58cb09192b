"""Codes of heads on two machines. .ci/aarch64 runs it here and on the emulated processor, and compares.

aarch64_codes.py pictures FILE COUNT CNN [FOLDER]   draw pictures from FOLDER/<class>, or generate them
aarch64_codes.py run FILE OUT CNN [REFERENCE]       run heads; and decode the payloads of the other machine's OUT
aarch64_codes.py compare FILE ONE TWO CNN           print the shares of codes, pictures and answers that differ
"""

import sys
from pathlib import Path

import numpy as np

from tidesplit.compression.codec.knobs import BITS, FLOAT32, INT8, Knobs
from tidesplit.compression.codec.pixels import load_square, natural_picture, to_input
from tidesplit.runtime.cnn import load_cnn
from tidesplit.runtime.models import head_name, tail_name

HEADS = [(2, 1.0, FLOAT32), (2, 1.0, INT8), (3, 0.5, FLOAT32), (3, 0.5, INT8)]


def pictures(file, count, cnn, folder=None):
    """Store pixels, made on one machine only, and labels. A generated picture has no label: -1."""
    if folder is None:
        rng = np.random.default_rng(0)
        clean = [natural_picture(cnn.input_px, seed) for seed in range(int(count))]
        made = [
            (p + rng.normal(0.0, 8.0 * (i % 4), p.shape)).clip(0, 255).astype(np.uint8) for i, p in enumerate(clean)
        ]
        labels = np.full(len(made), -1)
    else:
        found = sorted(path for path in Path(folder).glob("*/*") if path.parent.name in cnn.classes)
        chosen = [found[i] for i in np.random.default_rng(0).permutation(len(found))[: int(count)]]
        made = [load_square(path, cnn.input_px) for path in chosen]
        labels = np.array([cnn.classes.index(path.parent.name) for path in chosen])
    np.savez(file, pixels=np.stack(made), labels=labels)


def run(file, out, cnn, reference=None):
    """Store every head's values and scores, and the values that are decoded from its payloads.

    With ``reference``, the other machine's file, decode that one's payloads too. They must give the same values.
    """
    pixels, found = np.load(file)["pixels"], {}
    for partition, ratio, precision in HEADS:
        name = head_name(partition, ratio, precision)
        session = cnn.session(name)
        outputs = [session.run(["y", "score"], {"x": to_input(p)}) for p in pixels]
        found[f"{name} y"], found[f"{name} score"] = (np.concatenate(column) for column in zip(*outputs, strict=True))
        print(f"{name}: {len(pixels)} pictures", flush=True)
    np.savez(out, **found)
    if reference:
        decoded = [cnn.codec.decode(payload)[0] for payload in payloads(cnn, np.load(reference))]
        expected = np.load(reference.replace(".npz", ".decoded.npy"))
        assert np.array_equal(np.concatenate([d.ravel() for d in decoded]), expected)
        print(f"{len(decoded)} payloads of the other machine are decoded to the very same values")
    else:
        decoded = [cnn.codec.decode(payload)[0].ravel() for payload in payloads(cnn, np.load(out))]
        np.save(out.replace(".npz", ".decoded.npy"), np.concatenate(decoded))


def payloads(cnn, values):
    """Payloads of all heads and pictures, at 2 bits."""
    for partition, ratio, precision in HEADS:
        yield from encoded(cnn, values, head_name(partition, ratio, precision), Knobs(partition, ratio, 1.0, 2))


def encoded(cnn, values, name, knobs):
    """Payloads of one head."""
    pairs = zip(values[f"{name} y"], values[f"{name} score"], strict=True)
    return [cnn.codec.encode(y, score[0], knobs) for y, score in pairs]


def compare(file, one, two, cnn):
    """Print the table. An answer is that of the tail here, for the payload of either machine."""
    labels, machines = np.load(file)["labels"], (np.load(one), np.load(two))
    for partition, ratio, precision in HEADS:
        name, tail = head_name(partition, ratio, precision), cnn.session(tail_name(partition))
        for bits in BITS:
            knobs = Knobs(partition, ratio, 1.0, bits)
            here, there = (cnn.codec.codes(values[f"{name} y"], knobs) for values in machines)
            decoded = [[cnn.codec.decode(p)[0] for p in encoded(cnn, values, name, knobs)] for values in machines]
            answers = [np.array([tail.run(None, {"x": x[None]})[0].argmax() for x in sent]) for sent in decoded]
            right = [f"{100 * (a == labels).mean():.1f} %" if labels.min() >= 0 else "no labels" for a in answers]
            print(
                f"{name}, {bits} bits: {100 * (here != there).mean():.4f} % of the codes differ, in "
                f"{(here != there).any((1, 2, 3)).sum()} of {len(labels)} pictures; "
                f"{(answers[0] != answers[1]).sum()} answers differ; right: {right[0]} here, {right[1]} there",
                flush=True,
            )


if __name__ == "__main__":
    verb, file, second, third, *rest = sys.argv[1:]
    if verb == "pictures":
        pictures(file, second, load_cnn(Path(third)), *rest)
    elif verb == "run":
        run(file, second, load_cnn(Path(third)), *rest)
    else:
        compare(file, second, third, load_cnn(Path(rest[0])))
