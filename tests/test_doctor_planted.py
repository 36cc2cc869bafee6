"""Real runs, healthy and broken (`benchmarks/doctor.py`): what is planted is found at the next look."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from benchmarks import doctor

from elegan.training.folder import RunFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs are: kept from one time to the next in $ELEGAN_DOCTOR_RUNS."""
    return Path(os.environ.get("ELEGAN_DOCTOR_RUNS") or tmp_path_factory.mktemp("runs"))


@pytest.mark.parametrize("name", doctor.CASES)
def test_a_case(name: str, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.loop, "make_step", doctor.loop.make_step)  # what a case plants is taken away again
    monkeypatch.setattr(doctor.run, "open_split", doctor.run.open_split)
    doctor.case(name, runs, seed=1)
    rows = RunFolder(runs / name).stats("checks.jsonl")
    since = doctor.PLANTED if name in doctor.IN_THE_MIDDLE else 0
    looks = [row for row in rows if row["images"] > since]
    if name.startswith("healthy-"):
        assert len(looks) >= 6
        verdict = doctor.judged(runs / name)
        if verdict is None or verdict["lost"] == 0:  # by another judge; what is found in a run that is ill, is right
            assert [row["findings"] for row in looks if row["findings"]] == []
        return
    first = 1 if name in doctor.IN_THE_MIDDLE else 4
    assert any(doctor.expected(name) in row["findings"] for row in looks[:first]), looks[:first]
