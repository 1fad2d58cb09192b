"""SYNTHETIC profiles for tests: invented numbers of a plausible shape, never to be reported as a CNN's."""

from __future__ import annotations

from dataclasses import replace

from tidesplit.profiling.points.profile import (
    Chain,
    ChainTable,
    Codec,
    DeviceTable,
    OperatingPoint,
    Profile,
    Provenance,
    StreamBytes,
    Timing,
)

DEVICE, SERVER, CLOUD = "raspberry-pi-4", "x86-2core", "cloud"
INVENTED = Provenance(kind="estimated", source="invented for tests")

# id: partition, channels, regions, bits, codec, accuracy, bytes, head s on the device, tail s on the server, finish s
ROWS: dict[str, tuple[int, float, float, int, Codec, float, float, float, float, float]] = {
    "jpeg95": (0, 1.0, 1.0, 95, "jpeg", 0.92, 11_000.0, 0.006, 0.012, 0.0),
    "jpeg50": (0, 1.0, 1.0, 50, "jpeg", 0.86, 4_500.0, 0.005, 0.012, 0.0),
    "cut1-w100-b8": (1, 1.0, 1.0, 8, "feature", 0.915, 1_200.0, 0.025, 0.009, 0.085),
    "cut1-w100-b4": (1, 1.0, 1.0, 4, "feature", 0.90, 600.0, 0.025, 0.009, 0.085),
    "cut1-w50-b4": (1, 0.5, 1.0, 4, "feature", 0.87, 300.0, 0.016, 0.009, 0.030),
    "cut2-w100-b2": (2, 1.0, 1.0, 2, "feature", 0.89, 150.0, 0.045, 0.006, 0.065),
    "cut2-w50-r50-b2": (2, 0.5, 0.5, 2, "feature", 0.84, 100.0, 0.030, 0.006, 0.020),
    "device-w100": (3, 1.0, 1.0, 0, "none", 0.92, 0.0, 0.110, 0.0, 0.0),
    "device-w50": (3, 0.5, 1.0, 0, "none", 0.85, 0.0, 0.046, 0.0, 0.0),
    "device-w25": (3, 0.25, 1.0, 0, "none", 0.75, 0.0, 0.028, 0.0, 0.0),
}
# Streams of cuts and one of video.
STREAMS = {
    # id: like, accuracy, bytes by age, bytes of a key
    "p1-c1.00-r1.00-b4-s": ("cut1-w100-b4", 0.899, (200.0, 250.0, 300.0, 350.0, 400.0, 450.0), 600.0),
    "p1-c0.50-r1.00-b4-s": ("cut1-w50-b4", 0.869, (100.0, 125.0, 150.0, 175.0, 200.0, 225.0), 300.0),
    "p0-h264-q34": ("jpeg95", 0.91, (500.0, 1_000.0, 2_000.0, 3_000.0, 4_000.0, 6_000.0), 10_000.0),
}
FALLBACK = {1.0: "device-w100", 0.5: "device-w50"}


def synthetic_profile() -> Profile:
    """Ten points over two cuts, two image qualities and three widths on the device."""
    points, on_device, on_server = [], {}, {}
    for name, (partition, channels, regions, bits, codec, accuracy, size, head_s, tail_s, finish_s) in ROWS.items():
        points.append(
            OperatingPoint(
                id=name,
                partition=partition,
                channel_ratio=channels,
                region_ratio=regions,
                bits=bits,
                codec=codec,
                accuracy=accuracy,
                accuracy_ci95=(accuracy - 0.01, accuracy + 0.01),
                bytes_mean=size,
                bytes_std=0.1 * size,
                n=1000,
                fallback=FALLBACK[channels] if codec == "feature" else None,
            )
        )
        on_device[name] = Timing(head_s=head_s, encode_s=0.0, decode_s=0.0, tail_s=0.0, finish_s=finish_s)
        on_server[name] = Timing(head_s=0.0, encode_s=0.0, decode_s=0.0, tail_s=tail_s, finish_s=0.0)
    return Profile(
        name="synthetic",
        partitions=3,
        points=tuple(points),
        accuracy_provenance=INVENTED,
        devices={
            DEVICE: DeviceTable(provenance=INVENTED, timings=on_device),
            SERVER: DeviceTable(provenance=INVENTED, timings=on_server),
        },
    )


def stream_profile() -> Profile:
    """The same with two streams of cuts, which share their reference, and one of video."""
    profile = synthetic_profile()
    points, tables = list(profile.points), {label: dict(t.timings) for label, t in profile.devices.items()}
    for name, (like, accuracy, by_age, key) in STREAMS.items():
        twin = profile.point(like)
        codec: Codec = "h264" if twin.codec == "jpeg" else twin.codec
        bits = 34 if twin.codec == "jpeg" else twin.bits
        points.append(
            replace(
                twin, id=name, codec=codec, bits=bits, accuracy=accuracy, accuracy_ci95=(accuracy, accuracy),
                bytes_mean=by_age[0], bytes_std=0.1 * by_age[0], stream=StreamBytes(by_age=by_age, key=key),
            )
        )  # fmt: skip
        for timings in tables.values():
            timings[name] = timings[like]
    devices = {label: replace(t, timings=tables[label]) for label, t in profile.devices.items()}
    return replace(profile, points=tuple(points), devices=devices, stream_provenance=INVENTED)


def three_tier_profile() -> Profile:
    """The same with a cloud 2.5 times as fast as the server, which becomes the middle server, and two pairs of cuts."""
    profile = synthetic_profile()
    timings = {
        name: Timing(head_s=0.0, encode_s=0.0, decode_s=0.0, tail_s=t.tail_s / 2.5, finish_s=0.0)
        for name, t in profile.devices[SERVER].timings.items()
    }
    pairs = [("jpeg95", "cut2-w100-b2", 0.03, 160.0), ("cut1-w100-b4", "cut2-w100-b2", 0.05, 140.0)]
    chains = tuple(
        Chain(
            first=first, second=second, accuracy=0.85, accuracy_ci95=(0.84, 0.86), lost=lost, bytes_mean=size,
            bytes_std=0.1 * size, n=1000,
        )
        for first, second, lost, size in pairs
    )  # fmt: skip
    measured = replace(profile, chains=ChainTable(provenance=INVENTED, chains=chains))
    return measured.with_device(CLOUD, DeviceTable(provenance=INVENTED, timings=timings))
