"""What `wmzoo bench` compares is the same arithmetic: bf16 and written-out attention agree with fp32 and the fused kernel."""

from dataclasses import replace
from pathlib import Path

import pytest

from wmzoo import bench, registry
from wmzoo.config import needs_of
from wmzoo.data import Windows


def test_gradients_agree_to_the_accuracy_of_bf16(toy_data: Path) -> None:
    """The cosine of the whole gradient is above .999, and every way was timed."""
    arm = registry.arm("policy", "tiny")
    arm = replace(arm, data=replace(arm.data, root=str(toy_data)))
    result = bench.step_rows(arm, Windows(arm.data, needs_of(arm), 0), seconds=0.1, peak=100.0, compiled=False)
    assert [row["way"] for row in result["ways"]] == [bench.PLAIN.name, bench.EAGER.name]
    assert all(row["gradient cosine"] > 0.999 for row in result["ways"])
    assert result["GFLOP"] > 0


def test_the_trunk_row_shows_reference_parity_and_default() -> None:
    """Three trunks of one size, the published one first with ratio 1."""
    row = bench.trunk_row(32, 2, 2, seconds=0.05, compiled=False)
    assert row["rows"][0]["ratio"] == 1
    assert len(row["rows"]) == 3
    assert all(r["steps/s"] > 0 for r in row["rows"])


@pytest.mark.slow
def test_families_are_timed_on_the_same_data(toy_data: Path) -> None:
    """One row an arm, the policy first with ratio 1."""
    data = replace(registry.arm("policy", "tiny").data, root=str(toy_data), size=32, horizon=16, batch=2)
    rows = bench.arm_rows(data, seconds=0.1)
    assert [row["arm"] for row in rows] == list(bench.FAMILIES)
    assert rows[0]["ratio"] == rows[0]["chunk ratio"] == 1
    assert all(row["milliseconds"] > 0 and row["chunk"] > 0 for row in rows)
    rows = bench.arm_rows(data, 0.1, ("policy", "rla_wm"))
    assert ["chunk" in row for row in rows] == [True, False], "a world model has no chunk"
    assert bench.arms_table(rows).endswith("no policy")
