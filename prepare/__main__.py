"""Make any CNN ready for split inference, from pictures that need no labels.

    tidesplit prepare nets:resnet18 --weights resnet18.safetensors --pictures photos --preprocess imagenet --out my_cnn

NET is module:factory, a callable without arguments that returns a torch.nn.Module, or an ONNX file. Its weights stay as
they are: bottlenecks are trained at up to five of its cuts, by its own answers. The folder my_cnn then has the profile,
the models of device and server, and a card to read. A run that was interrupted goes on where it stopped, with the same
command.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tidesplit.data.option_types import number, whole_number
from tidesplit.prepare.source.preprocessing import PRESETS

CORES = os.cpu_count() or 1


def parser() -> argparse.ArgumentParser:
    """Command line of this module."""
    made = argparse.ArgumentParser(
        prog="tidesplit prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = made.add_argument
    option("net", metavar="NET", help="module:factory that returns a torch.nn.Module, or an ONNX file")
    option("--weights", type=Path, metavar="FILE", help="the net's weights: safetensors, or a state dict of torch")
    option(
        "--pictures", type=Path, required=True, metavar="DIR",
        help="pictures like those of the camera; sub-folders are classes where they are as many as the net's outputs; "
        "with sub-folders train and test, the latter judge",
    )  # fmt: skip
    option("--out", type=Path, required=True, metavar="FOLDER", help="folder to write; its name is the CNN's")
    option(
        "--preprocess", default="imagenet", metavar="WHAT",
        help=f"{' or '.join(PRESETS)}, or a JSON file with size, mean, std, colours, layout (default: %(default)s)",
    )  # fmt: skip
    option("--px", type=int, metavar="N", help="side of the net's pictures (default: that of --preprocess, 224)")
    option(
        "--crop", type=number(0.0, 1.0), metavar="SHARE",
        help="take a picture's middle, of so much of its shorter side; 0: squash the whole picture (default: 0)",
    )  # fmt: skip
    option(
        "--task", choices=("classes", "tensor"),
        help="what the answer is: logits of classes, or any tensors (default: by its shape)",
    )  # fmt: skip
    option("--server-net", metavar="NET", help="another net, for the pictures that the server answers as a whole")
    option("--server-weights", type=Path, metavar="FILE", help="the weights of --server-net")
    option(
        "--server-preprocess", metavar="WHAT",
        help="what --server-net expects; pictures are scaled to its size (default: --preprocess, at --px)",
    )  # fmt: skip
    option("--classes", type=Path, metavar="FILE", help="names of the classes, one a line, in the net's order")
    option("--cuts", type=_numbers, default=(), metavar="N,...", help="numbers of cuts, as --list shows them")
    option("--list", action="store_true", help="show the legal cuts and the chosen ones, and end")
    option("--minutes", type=number(0.01, 1e4), default=4.0, help="longest training of one cut (default: %(default)s)")
    option(
        "--steps",
        type=whole_number(1, 10**7),
        default=2000,
        help="most training steps of one cut (default: %(default)s)",
    )
    option("--batch", type=whole_number(2, 1024), default=32, help="pictures in a step (default: %(default)s)")
    option("--rate", type=number(1e-6, 1.0), default=1e-3, help="rate of AdamW (default: %(default)s)")
    option(
        "--judge",
        type=whole_number(16, 10**6),
        default=400,
        metavar="N",
        help="most pictures that judge (default: %(default)s)",
    )
    option("--no-int8", action="store_true", help="leave out models of 8-bit integers")
    option("--no-video", action="store_true", help="leave out video, for which device and server need PyAV")
    option("--device", default="this-machine", metavar="LABEL", help="name of this machine (default: %(default)s)")
    option("--rounds", type=whole_number(1, 1000), default=12, help="rounds of timing (default: %(default)s)")
    option("--threads", type=whole_number(1, 256), default=CORES, help="CPU threads (default: one a core)")
    option("--seed", type=int, default=0, help="seed of every generator (default: %(default)s)")
    return made


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",") if word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} received, numbers such as 3,9 expected") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns 0, 2 for a user's mistake, 130 when stopped."""
    options = parser().parse_args(arguments)
    words = sys.argv[1:] if arguments is None else list(arguments)
    from tidesplit.prepare.preparation import Preparation

    try:
        Preparation(options, f"tidesplit prepare {shlex.join(words[words[:1] == ['prepare'] :])}").run()
    except (ValueError, OSError) as error:
        print(f"tidesplit prepare: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("tidesplit prepare: stopped; the same command goes on with the finished steps", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
