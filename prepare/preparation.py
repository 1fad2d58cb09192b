"""The steps of a preparation, one after another."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tidesplit.compression.codec.knobs import FLOAT32, PRECISIONS, Precision
from tidesplit.compression.codec.learned_entropy import CODED_BITS, named
from tidesplit.compression.codec.pixels import to_input
from tidesplit.compression.fitting.fit_entropy import Values, fit_cut
from tidesplit.compression.heap import keep_heap
from tidesplit.compression.net.cnn_work import work_of
from tidesplit.compression.net.cut_codec import Codec
from tidesplit.compression.pictures.labelled import Pictures, scale
from tidesplit.data.files import whole
from tidesplit.prepare.chosen_cuts import choose, share_of
from tidesplit.prepare.cut_net import FULL, RATIO, CutNet, Part, ServerNet
from tidesplit.prepare.distilled import METHOD, Distillation, DistillOptions
from tidesplit.prepare.feature_cache import Cached, cache_features, crops_of, half_is_quicker
from tidesplit.prepare.result.card import CARD_FILE, card, summary
from tidesplit.prepare.result.filmed import FILMED, film, why_not, with_video
from tidesplit.prepare.result.int8_parts import int8_parts
from tidesplit.prepare.result.judged import IMAGE_POINTS, UNCUT, Judge, Judged, judge, rows_of
from tidesplit.prepare.result.made_folder import profile_of, weights_hash, write_cnn
from tidesplit.prepare.result.models_of_cut_net import chains, check_sizes, float_files, part_file
from tidesplit.prepare.result.timed import timed
from tidesplit.prepare.source.folder_pictures import listing, read_folder
from tidesplit.prepare.source.net_source import hash_of
from tidesplit.prepare.source.picture_net import CLASSES, load_picture_net, shapes_of
from tidesplit.prepare.source.preprocessing import PrepareError, read_preprocess
from tidesplit.prepare.step_files import Show, Steps
from tidesplit.prepare.task import Task, task_of
from tidesplit.profiling.cuts.legal_cuts import Cut, find_cuts, table
from tidesplit.profiling.cuts.operations import TraceFailedError, trace
from tidesplit.profiling.measuring.assemble import settings_of
from tidesplit.profiling.measuring.clock import machine_facts
from tidesplit.profiling.measuring.trained import smaller
from tidesplit.profiling.points import profile as profiles
from tidesplit.runtime.export import SUBFOLDER
from tidesplit.runtime.wire.output_tensors import OUTPUT

WORK_FOLDER, STEPS = "work", "steps"
TABLE_CROPS, RANGE_PICTURES = 512, 64
"""Crops and pictures that the entropy stage's tables, and the ranges of int8 models, are fitted to."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,60}")


class Preparation:
    """One run of the command. ``command``: its text, for the card and the profile."""

    def __init__(self, options: argparse.Namespace, command: str) -> None:
        self.options, self.command = options, command
        self.out: Path = options.out
        self.distill = DistillOptions(options.minutes, options.steps, options.batch, options.rate, options.seed)

    def run(self) -> None:
        """All steps."""
        options = self.options
        if not NAME.fullmatch(self.out.resolve().name):
            raise PrepareError(f"--out {self.out}: a folder name of letters, digits, - and _ expected")
        keep_heap()
        torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        self.preprocess = read_preprocess(options.preprocess, options.px, options.crop)
        self.net = load_picture_net(options.net, options.weights, self.preprocess, options.task)
        px = self.preprocess.size
        self.shapes = shapes_of(self.net, px)
        print(f"answer: {told(self.shapes)}, taken for {'classes' if self.net.task == CLASSES else 'tensors'}")
        names = [] if options.classes is None else options.classes.read_text(encoding="utf-8").split("\n")
        if options.classes and self.net.task != CLASSES:
            raise PrepareError(f"--classes {options.classes}: the net's answer is {told(self.shapes)}, not of classes")
        try:
            traced = trace(self.net, torch.zeros(1, 3, px, px))
        except TraceFailedError as error:
            raise PrepareError(f"{options.net}: {str(error).partition(': ')[2]}") from error
        cuts = find_cuts(traced)
        chosen = choose(cuts, px, options.cuts)
        self._show_cuts(cuts if options.list else chosen, chosen)
        if options.list:
            return
        outputs = self.shapes[OUTPUT][1] if self.net.task == CLASSES else 0
        self.pictures = read_folder(options.pictures, outputs, [name for name in names if name], options.judge)
        self.task = self._task()
        self.cut_net = CutNet(self.net, traced, chosen, px)
        self.cut_net.server = self._server_net()
        check_sizes(self.cut_net)
        self._prepare()

    def _task(self) -> Task:
        try:
            return task_of(self.shapes, self.pictures.classes, self.pictures.labels)
        except ValueError as error:
            raise PrepareError(str(error)) from error

    def _server_net(self) -> ServerNet | None:
        """The server's net for whole pictures, where it has one of its own."""
        options = self.options
        if options.server_net is None:
            return None
        preprocess = self.preprocess
        if options.server_preprocess is not None:
            preprocess = read_preprocess(options.server_preprocess)
        net = load_picture_net(options.server_net, options.server_weights, preprocess, self.net.task)
        found = shapes_of(net, preprocess.size)
        alike = [*found.items()] == [*self.shapes.items()]  # in one order, since their values are joined
        if not alike and not [*found.values()] == [*self.shapes.values()] == [*self.shapes.values()][:1]:
            raise PrepareError(
                f"--server-net {options.server_net} answers {told(found)}, {told(self.shapes)} expected as NET does"
            )
        return ServerNet(net, preprocess.size, self.preprocess.size).eval()

    def _of_server(self) -> dict[str, Any]:
        """What the server's own net is, for the profile; empty where it has none."""
        server = self.cut_net.server
        if server is None:
            return {}
        return {"net": self.options.server_net, "weights_sha256": hash_of(server), "px": server.own_px}

    def _show_cuts(self, listed: tuple[Cut, ...], chosen: tuple[Cut, ...]) -> None:
        print(table(listed))
        places = ", ".join(f"{cut.index} ({share_of(cut):.0%})" for cut in chosen)
        print(f"chosen: {places}", flush=True)

    def _prepare(self) -> None:
        net, px, pictures = self.cut_net, self.preprocess.size, self.pictures
        int8 = not self.options.no_int8
        video = self._video()
        steps = Steps(self.out / WORK_FOLDER, net.partitions - 1 + 5 + int8 + video)
        batch = min(self.distill.batch, len(pictures.fit))
        distill = replace(self.distill, batch=batch)
        basis = [hash_of(self.net), self.preprocess.values(), listing(pictures.fit), asdict(distill), METHOD]
        basis += [] if self.net.task == CLASSES else [self.shapes]
        every = [
            *basis,
            [[asdict(cut), asdict(part.spec)] for cut, part in zip(net.cuts, net.bottlenecks.values(), strict=True)],
        ]
        to_fit = pictures.to_fit(px, self.preprocess.crop)
        names = {
            p: (f"cut {net.cuts[p - 1].index}", [*basis, asdict(net.cuts[p - 1]), asdict(part.spec)])
            for p, part in net.bottlenecks.items()
        }
        needed = [(name, depends) for name, depends in [*names.values(), ("entropy tables", every)]]
        batched, features = _once(lambda: self._batched(batch, to_fit)), Path()
        if all(steps.path(name, ".safetensors", depends).exists() for name, depends in needed):
            steps.skip()
        else:
            features = steps.file("features", "", every, partial(self._features, batch, to_fit, batched))
        trained = dict[int, int]()
        for p, (name, depends) in names.items():
            make = partial(self._train, p, distill, batched, features)
            with safe_open(steps.file(name, ".safetensors", depends, make), "pt") as file:
                net.bottlenecks[p].load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
                trained[p] = int(file.metadata()[STEPS])
            net.bottlenecks[p].eval().requires_grad_(False)
        path = steps.file("entropy tables", ".safetensors", every, partial(self._tables, batch, features))
        if features.name:
            shutil.rmtree(features, ignore_errors=True)  # large, and needed no more
        codec = Codec(net, tables=_bytes_of(path)).wire
        server = self._of_server()
        path = steps.file("models", ".safetensors", [*every, server] if server else every, self._models)
        files = _bytes_of(path)
        if int8:
            path = steps.file("int8 models", ".safetensors", every, partial(self._int8, files, to_fit))
            files |= _bytes_of(path)
        precisions: tuple[Precision, ...] = PRECISIONS if int8 else (FLOAT32,)
        sha256 = weights_hash(files, codec)
        codec = replace(codec, tag=int(sha256[:4], 16))
        judged_by = [sha256, listing(pictures.held), pictures.labels, self.task.words.measure]
        models = chains(net.partitions, precisions, net.server is not None)
        settings = settings_of(net, smaller(IMAGE_POINTS, px), precisions)
        judge_of = partial(Judge, files, models, codec, settings, self.task)
        judged = steps.file("accuracy", ".json", judged_by, partial(self._judge, judge_of))
        counts = {name: Judged(**some) for name, some in json.loads(judged.read_text(encoding="utf-8")).items()}
        name = self.out.resolve().name
        cnn = write_cnn(self.out / SUBFOLDER, name, sha256, self.preprocess, self.task.form, codec, files, models)
        rows = rows_of(counts, settings, self.task)
        facts = {
            "input_px": px, "classes": len(pictures.classes), "dataset": self.options.pictures.resolve().name,
            "weights_sha256": sha256, "measure": self.task.words.measure, "preprocess": self.preprocess.values(),
            "feature_bytes": {str(p): cut.feature_bytes for p, cut in enumerate(net.cuts, start=1)},
            "values_moved": {str(RATIO): work_of(net.net, torch.zeros(1, 3, px, px)).values},
            **({"server_net": server} if server else {}),
            **({} if self.net.task == CLASSES else {"outputs": self.shapes}),
        }  # fmt: skip
        machine = machine_facts(self.options.threads)
        profile = profile_of(name, net, self.task.words, rows, facts, self.command, _words(machine))
        shown = [judged.name]
        if video:
            filmed = steps.file("video", ".json", [*judged_by, FILMED], partial(self._film, judge_of))
            profile = with_video(profile, json.loads(filmed.read_text(encoding="utf-8")))
            shown.append(filmed.name)
        path = steps.file(
            "timings", ".json", [*shown, facts, machine, self.options.device, self.options.rounds],
            partial(timed, cnn, profile, self.options),
        )  # fmt: skip
        (self.out / profiles.FILE).write_bytes(path.read_bytes())
        with whole(self.out / CARD_FILE) as part:
            page = card(
                profile, counts, net, pictures, self.task, self.preprocess, self.command, self._training(trained)
            )
            part.write_text(page, encoding="utf-8")
        print(summary(profile, counts, self.task.words))
        print(f"{self.out}: {profiles.FILE}, {CARD_FILE}, {SUBFOLDER}/ with weights {sha256[:16]}")

    def _batched(self, size: int, pictures: Pictures) -> tuple[list[Part], bool]:
        parts = self.cut_net.in_batches(size)
        px = self.preprocess.size
        image = scale(np.asarray(pictures.images[:size, :px, :px]))
        return parts, half_is_quicker(parts, image)

    def _features(
        self, batch: int, pictures: Pictures, batched: Callable[[], tuple[list[Part], bool]], path: Path, show: Show
    ) -> str:
        parts, half = batched()
        crops = crops_of(
            [cut.shape[1:] for cut in self.cut_net.cuts], batch, len(self.pictures.fit), self.task.form.size
        )
        seed = self.distill.seed
        cache_features(parts, pictures, self.preprocess.size, crops, batch, seed, half, path, show)
        return f"of {max(crops)} crops{', in bfloat16' if half else ''}"

    def _train(
        self, p: int, distill: DistillOptions, batched: Callable[[], tuple[list[Part], bool]], features: Path,
        path: Path, show: Show,
    ) -> str:  # fmt: skip
        parts, half = batched()
        bottleneck, losses = self.cut_net.bottlenecks[p], list[float]()

        def say(share: float, loss: float) -> None:
            losses.append(loss)
            show(share, f"loss {np.mean(losses[-20:]):.3f}")

        Distillation(parts[p:], bottleneck, Cached(features, p), self.task, distill, half).run(say)
        tensors = {name: t.contiguous() for name, t in bottleneck.state_dict().items()}
        save_file(tensors, str(path), {STEPS: str(len(losses))})
        ended = f", ended by --minutes {distill.minutes:g}" if len(losses) < distill.steps else ""
        return f"loss {np.mean(losses[-20:]):.3f} after {len(losses)} of {distill.steps} steps{ended}"

    def _video(self) -> bool:
        """True where video is measured. Says why it cannot be."""
        reason = None if self.options.no_video else why_not(self.preprocess.size)
        if reason:
            print(f"no video: {reason}", file=sys.stderr)
        return not (self.options.no_video or reason)

    def _film(self, judge_of: Callable[[], Judge], path: Path, show: Show) -> str:
        options, px, crop = self.options, self.preprocess.size, self.preprocess.crop
        rows = film(judge_of(), self.pictures, self.task, px, crop, options.threads, show)
        path.write_text(json.dumps(rows), encoding="utf-8")
        best = min(rows, key=lambda row: row["bytes_mean"])
        return f"{len(rows)} points on {best['n_clips']} clips, from {best['bytes_mean']:.0f} bytes a frame"

    def _training(self, trained: dict[int, int]) -> str:
        """Steps that the bottlenecks were trained, for the card. A crowded machine does fewer in its minutes."""
        steps = ", ".join(f"{count} at cut {self.cut_net.cuts[p - 1].index}" for p, count in trained.items())
        return f"of {self.distill.steps} steps in at most {self.distill.minutes:g} minutes a cut: {steps}"

    def _middle(self, pictures: Pictures, count: int) -> Any:
        """Pictures `[N, px, px, 3]` of the net's size: the middles of larger ones."""
        px = self.preprocess.size
        margin = (pictures.images.shape[1] - px) // 2
        return np.asarray(pictures.images[:count, margin : margin + px, margin : margin + px])

    @torch.inference_mode()
    def _tables(self, batch: int, features: Path, path: Path, show: Show) -> str:
        codec, values = Codec(self.cut_net).wire, dict[int, list[Values]]()
        for p, bottleneck in self.cut_net.bottlenecks.items():
            cached = Cached(features, p)
            count = min(TABLE_CROPS, len(cached))
            for start in range(0, count - batch + 1, batch):
                y, score = bottleneck.encode(cached.rows(np.arange(start, start + batch))[0], FULL)
                values.setdefault(p, []).append((RATIO, y.numpy(), score[:, 0].numpy()))
            show(p / self.cut_net.partitions)
        tables = {(p, bits): fit_cut(codec, p, bits, some) for p, some in values.items() for bits in CODED_BITS}
        save_file({name: _as_tensor(data) for name, data in named(tables).items()}, str(path))
        return f"{len(tables)} tables"

    def _models(self, path: Path, show: Show) -> str:
        picture = torch.from_numpy(
            to_input(np.asarray(self.pictures.to_judge(self.preprocess.size, self.preprocess.crop).images[0]))
        )
        count, every = 0, 3 * self.cut_net.partitions - 2 + (self.cut_net.server is not None)

        def tell(name: str) -> None:
            nonlocal count
            count += 1
            show(count / every, name)

        files = float_files(self.cut_net, picture, tell)
        save_file({name: _as_tensor(data) for name, data in files.items()}, str(path))
        return f"{len(files)} files, {sum(map(len, files.values())) / 2**20:.1f} MiB, equal to torch"

    def _int8(self, files: dict[str, bytes], pictures: Pictures, path: Path, show: Show) -> str:
        del show
        pairs = [(p, p + 1) for p in range(self.cut_net.partitions)]
        images = [to_input(image) for image in self._middle(pictures, RANGE_PICTURES)]
        made = int8_parts([files[part_file(*pair)] for pair in pairs], images)
        named_ = {part_file(*pair, "int8"): data for pair, data in zip(pairs, made, strict=True)}
        save_file({name: _as_tensor(data) for name, data in named_.items()}, str(path))
        return f"{len(made)} files, {sum(map(len, made)) / 2**20:.1f} MiB"

    def _judge(self, judge_of: Callable[[], Judge], path: Path, show: Show) -> str:
        to_judge = self.pictures.to_judge(self.preprocess.size, self.preprocess.crop)
        counts = judge(judge_of(), to_judge, self.task, self.options.threads, show)
        path.write_text(json.dumps({name: asdict(some) for name, some in counts.items()}), encoding="utf-8")
        uncut = counts[UNCUT]
        measure, right = self.task.words.measure, uncut.right / uncut.n
        return f"{measure} of {len(counts)} points on {uncut.n} pictures, uncut {right:.1%}"


def told(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Outputs in words."""
    return " and ".join(f"{name} {list(shape)}" for name, shape in shapes.items())


def _words(machine: dict[str, Any]) -> str:
    return f"{machine['cpu']}, {machine['cores']} cores"


def _as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _bytes_of(path: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(str(path)).items()}


def _once(make: Callable[[], tuple[list[Part], bool]]) -> Callable[[], tuple[list[Part], bool]]:
    """The function, run at its first call only."""
    found: list[tuple[list[Part], bool]] = []

    def get() -> tuple[list[Part], bool]:
        if not found:
            found.append(make())
        return found[0]

    return get
