"""The command `tidesplit`: one program, a subcommand for each job."""

from __future__ import annotations

import importlib
import sys

COMMANDS = {
    "train": ("tidesplit.train", "train a policy for a profile, a demand and an uplink"),
    "evaluate": ("tidesplit.evaluate", "compare a trained policy with every rule on any uplink"),
    "edge": ("tidesplit.runtime.edge", "run on the device: classify a camera's frames with a trained policy"),
    "server": ("tidesplit.runtime.server.__main__", "answer frames from devices"),
    "emulate": ("tidesplit.runtime.emulator.__main__", "put an emulated mobile link between a device and a server"),
    "export": ("tidesplit.runtime.export", "write a CNN's ONNX models for device and server"),
    "profile": ("tidesplit.profiling.__main__", "measure what the operating points of a CNN cost"),
    "cuts": ("tidesplit.profiling.cuts.legal_cuts", "find the legal cuts of a torch module"),
    "trace": ("tidesplit.envs.traces.generator", "generate a synthetic uplink trace, or fit one"),
    "train-cnn": ("tidesplit.compression.training.recipe", "train a CNN with all its operating points"),
    "fit-entropy": (
        "tidesplit.compression.training.fit_entropy",
        "fit the entropy stage's tables to training pictures",
    ),
    "unpack": ("tidesplit.compression.pictures.packed", "write packed CIFAR-10 pictures as folders"),
    "estimate-pi": (
        "tidesplit.profiling.devices.raspberry_pi",
        "estimate a Raspberry Pi 4's timings from measured ones",
    ),
    "namespaces": ("tidesplit.runtime.emulator.namespaces", "emulate a mobile link between network namespaces (root)"),
    "cnnpc": ("tidesplit.agents.cnnpc.__main__", "solve CNNPC's static search exactly"),
}
"""Subcommand: the module whose ``main`` it is, and what it does. Modules are imported when they are asked for."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand. Returns its exit status; 2 for a word that is none."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] not in COMMANDS:
        print(f"tidesplit: error: no command {words[0]!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    module, _ = COMMANDS[words[0]]
    status: int | None = importlib.import_module(module).main(words[1:])
    return status or 0


def usage() -> str:
    """What `tidesplit --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {told}" for name, (_, told) in COMMANDS.items()]
    return "\n".join(["usage: tidesplit COMMAND ...", "", *lines, "", "tidesplit COMMAND --help tells more."])


if __name__ == "__main__":
    sys.exit(main())
