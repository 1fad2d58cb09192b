"""Models of uplinks by name.

The fitted ones were printed by `tidesplit trace --fit TRACE [--step 0.5]` for measured training traces. These traces
are not part of the project.
"""

from __future__ import annotations

from tidesplit.envs.traces.model import LinkModel

_MAHIMAHI = "mahimahi (Winstein et al., NSDI 2013; Netravali et al., USENIX ATC 2015)"

LTE = LinkModel(
    name="lte",
    source=f"fitted to ATT-LTE-driving uplink, {_MAHIMAHI}",
    step_s=0.1,
    quantiles_bps=(0.12e6, 0.24e6, 0.72e6, 0.96e6, 1.2e6, 1.56e6, 1.68e6, 2.76e6),
    empty_share=0.0582,
    memory_s=(0.3, 2.0, 20.0),
    weights=(0.0, 0.5, 0.1, 0.4),
    outages_per_hour=21.3,
    outage_mean_s=16.1,
)
LTE_MID = LinkModel(
    name="lte-mid",
    source=f"fitted to ATT-LTE-driving-2016 uplink (2 minutes), {_MAHIMAHI}",
    step_s=0.1,
    quantiles_bps=(0.12e6, 0.36e6, 0.96e6, 1.56e6, 2.52e6, 6.12e6, 14.119e6, 19.08e6),
    empty_share=0.0929,
    memory_s=(0.3, 2.0, 20.0),
    weights=(0.6, 0.15, 0.15, 0.1),
    outages_per_hour=60.0,
    outage_mean_s=3.0,
)
LTE_FAST = LinkModel(
    name="lte-fast",
    source=f"fitted to TMobile-LTE-short uplink (2.3 minutes), {_MAHIMAHI}",
    step_s=0.1,
    quantiles_bps=(0.12e6, 2.04e6, 6.6e6, 11.52e6, 20.28e6, 28.2e6, 30.36e6, 36.84e6),
    empty_share=0.005,
    memory_s=(0.6, 10.0, 60.0),
    weights=(0.15, 0.05, 0.75, 0.05),
    outages_per_hour=0.0,
    outage_mean_s=2.0,
)
NR_5G = LinkModel(
    name="5g",
    source="fitted to 300 uplink tests of 120 s while driving, Ghoshal et al., CoNEXT 2025",
    step_s=0.5,
    quantiles_bps=(1.038e6, 2.097e6, 13.632e6, 36.7e6, 67.108e6, 106.957e6, 133.172e6, 175.112e6),
    empty_share=0.0415,
    memory_s=(0.6, 10.0, 60.0),
    weights=(0.05, 0.05, 0.9, 0.0),
    outages_per_hour=31.2,
    outage_mean_s=3.0,
)
UMTS = LinkModel(
    name="umts",
    source="assumed, not fitted: a 3G uplink below 1 Mbit/s for most of the time, with frequent stalls",
    step_s=0.1,
    quantiles_bps=(0.024e6, 0.06e6, 0.18e6, 0.35e6, 0.6e6, 1.1e6, 1.4e6, 2.0e6),
    empty_share=0.1,
    memory_s=(0.6, 5.0, 60.0),
    weights=(0.3, 0.2, 0.4, 0.1),
    outages_per_hour=60.0,
    outage_mean_s=4.0,
)
GAPS = LinkModel(
    name="gaps",
    source="assumed, not fitted: a quick uplink with short gaps that nothing announces, as benchmarks/worst_links.py "
    "finds them hard for a policy",
    step_s=0.1,
    quantiles_bps=(0.5e6, 1e6, 2e6, 4e6, 6e6, 10e6, 14e6, 20e6),
    empty_share=0.3,
    memory_s=(1.0, 5.0, 30.0),
    weights=(0.1, 0.1, 0.1, 0.7),
    outages_per_hour=15.0,
    outage_mean_s=4.0,
)
METRO = LinkModel(
    name="metro",
    source="assumed, not fitted: a middle server's access network with a median of 50 Mbit/s, the constant value of "
    "Scission (Lockhart et al., UCC 2020), and a few Mbit/s now and then",
    step_s=0.5,
    quantiles_bps=(1e6, 5e6, 25e6, 50e6, 70e6, 90e6, 100e6, 100e6),
    empty_share=0.0,
    memory_s=(2.0, 20.0, 60.0),
    weights=(0.2, 0.4, 0.3, 0.1),
    outages_per_hour=6.0,
    outage_mean_s=3.0,
)

PRESETS = {model.name: model for model in (LTE, LTE_MID, LTE_FAST, NR_5G, UMTS, GAPS, METRO)}
