"""The command `tidesplit`: one program, a subcommand for each job."""

from __future__ import annotations

import importlib
import sys

from tidesplit import __version__

GROUPS = {
    "train and compare": {
        "train": ("tidesplit.train", "train a policy for a profile, a demand and an uplink"),
        "evaluate": ("tidesplit.evaluate", "compare a trained policy with every rule on any uplink"),
    },
    "run": {
        "edge": ("tidesplit.runtime.edge", "on the device: classify a camera's frames with a trained policy"),
        "server": ("tidesplit.runtime.server.__main__", "answer frames from devices"),
        "emulate": ("tidesplit.runtime.emulator.__main__", "put an emulated mobile link between device and server"),
        "namespaces": ("tidesplit.runtime.emulator.namespaces", "emulate it between network namespaces (root)"),
        "export": ("tidesplit.runtime.export", "write a CNN's ONNX models for device and server"),
    },
    "measure": {
        "profile": ("tidesplit.profiling.__main__", "measure the operating points of a CNN"),
        "profile latency": ("tidesplit.runtime.timing.__main__", "time them on this machine, without torch"),
        "cuts": ("tidesplit.profiling.cuts.legal_cuts", "find the legal cuts of a torch module"),
        "estimate-pi": ("tidesplit.profiling.devices.raspberry_pi", "estimate Raspberry Pi boards' timings"),
        "trace": ("tidesplit.envs.traces.generator", "generate a synthetic uplink trace, or fit one"),
        "cnnpc": ("tidesplit.agents.cnnpc.__main__", "solve CNNPC's static search exactly"),
    },
    "make a CNN": {
        "prepare": ("tidesplit.prepare.__main__", "make any CNN ready, from pictures that need no labels"),
        "train-cnn": ("tidesplit.compression.training.recipe", "train a CNN with all its operating points"),
        "fit-entropy": ("tidesplit.compression.fitting.fit_entropy", "fit the tables of the entropy stage"),
        "fit-ranges": ("tidesplit.compression.fitting.fit_ranges", "measure the ranges that int8 models need"),
        "fit-streams": ("tidesplit.compression.fitting.fit_streams", "fit the tables of cuts with memory"),
        "fit-pictures": ("tidesplit.compression.training.fit_pictures", "fit image offload to small pictures"),
        "unpack": ("tidesplit.compression.pictures.packed", "write packed CIFAR-10 pictures as folders"),
    },
}
"""Subcommands by group. Each has the module with its ``main``, imported on demand, and a line of help.

A name of two words is a verb that needs other packages than the rest of its command.
"""

COMMANDS = {name: module for commands in GROUPS.values() for name, (module, _) in commands.items()}
EXTRAS = {"grpc_health": "server", "prometheus_client": "server", "ray": "ray", "av": "video"}
"""Extra that installs a package, by the package's import name. All others come with the extra `train`."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand. Returns its exit status; 2 for an unknown command or a missing extra."""
    name, rest = command_of(sys.argv[1:] if argv is None else argv)
    if name in ("", "-h", "--help"):
        print(usage())
        return 0 if name else 2
    if name == "--version":
        print(f"tidesplit {__version__}")
        return 0
    if name not in COMMANDS:
        print(f"tidesplit: error: no command {name!r}; there are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        status: int | None = importlib.import_module(COMMANDS[name]).main(rest)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "tidesplit"):
            raise
        extra = EXTRAS.get(package, "train")
        print(f"tidesplit {name}: error: {package} is missing: pip install 'tidesplit[{extra}]'", file=sys.stderr)
        return 2
    return status or 0


def command_of(words: list[str]) -> tuple[str, list[str]]:
    """The command's name, empty where there is none, and its arguments."""
    both = " ".join(words[:2])
    return (both, words[2:]) if both in COMMANDS else (words[0] if words else "", words[1:])


def usage() -> str:
    """Text of `tidesplit --help`."""
    width = max(map(len, COMMANDS))
    lines = ["usage: tidesplit [-h] [--version] COMMAND ..."]
    for title, commands in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<{width}}  {text}" for name, (_, text) in commands.items())]
    return "\n".join([*lines, "", "tidesplit COMMAND --help explains a command."])


if __name__ == "__main__":
    sys.exit(main())
