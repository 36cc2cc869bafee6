"""docs/evidence.md from the table and the results. No torch: a test of the documents reads it."""

from __future__ import annotations

import json
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from benchmarks.evidence.gate import Gate

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "evidence"
COST = RESULTS / "cost.json"
SEEDS = (0, 1, 2)

HEAD = """# Evidence

{notice}

Is what this package calls a WGAN-GP one? For each family the table says what was tested, when the test holds, what was
measured and what came out, misses included. A gate holds when it holds for the worst of its seeds; three seeds are the
aim, and fewer are said. *Neutral* is a technique that did not beat its own off-switch here. *Calibrated* says that the
same measurement missed its gate on a variant with a planted fault, so that it can tell; where the fault passed as well,
the gate proves little, and that is said too. Where a gate was changed after a miss, the miss is told. Everything
exact (optima, invariances, equal numbers at equal inputs) is a unit test in `tests/` and runs with `make test`.

**Protocol.** Fashion-MNIST and MNIST at 28x28 (drawn garments at 32x32 where a gate says so); networks narrow enough
for minutes on two cores (two trainings of a gate go on at once, one on each), with the larger learning rates that such
networks bear, the method unchanged; trained on a processor, or on a GPU where that is said (`cgan-concat-garments`,
`biggan-truncation-garments`, `r3gan-stacked` and `diffaugment-tenth` were made longer there after a miss, and take two
cores up to hours); samples from averaged weights where a family has them, 10,000 of them, none picked, against the
10,000 test images. *C* is the shipped classifier of the data set: it has seen the training images, as has the GAN, and
enters no loss. *FCD* is the Frechet distance on its features, and s = (FCD - floor) / (drop3 - floor), where floor is
the FCD of 10,000 training images and drop3 that of the test images without three of their ten classes: s below 1 is
nearer to the data than losing three classes. FCD does not compare with published Inception numbers.

`python -m benchmarks.evidence NAME` repeats a row (`--list` shows them all); results are files in
`benchmarks/results/evidence/`."""


def result_path(gate: str, seed: int, broken: bool) -> Path:
    """Where a result lies."""
    return RESULTS / f"{gate}-seed{seed}{'-broken' if broken else ''}.json"


def results(gate: Gate, broken: bool) -> list[dict[str, Any]]:
    """What was measured of a gate, seed by seed."""
    found = []
    for path in sorted(RESULTS.glob(f"{gate.name}-seed*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["broken"] == broken:
            found.append(result)
    return found


def costs() -> dict[str, dict[str, Any]]:
    """Of every machine (its line without the date): the "date", and the "minutes" that a seed of each gate takes.

    Nothing before `cost.py` has run.
    """
    found: dict[str, dict[str, Any]] = json.loads(COST.read_text(encoding="utf-8")) if COST.is_file() else {}
    return found


def verdict(gate: Gate) -> str:
    """In a few words."""
    found = results(gate, broken=False)
    if not found:
        return "not run"
    good = sum(gate.passed(r["measured"]) for r in found)
    word = "holds" if good == len(found) else "neutral" if gate.control else "missed"
    return f"**{word}** ({good} of {len(found)} seed{'s' if len(found) > 1 else ''})"


def measured(result: dict[str, Any]) -> str:
    """`accuracy 0.93, diversity 0.81`."""
    return ", ".join(
        f"{k.replace('_', ' ')} {v if isinstance(v, str) else number(v)}" for k, v in result["measured"].items()
    )


def trained_on(result: dict[str, Any]) -> str:
    """`, trained on one NVIDIA H100 80GB HBM3`; nothing for a processor."""
    device = result.get("device", "CPU")
    return "" if device.startswith("CPU") else f", trained on one {device}"


def number(value: float | None) -> str:
    """Three digits, or "not a number"."""
    return "not a number" if value is None else f"{value:.3g}"


def calibration(gate: Gate) -> str:
    """What the planted fault did."""
    if not gate.broken:
        return ""
    found = results(gate, broken=True)
    if not found:
        return f"Planted fault ({gate.broken}): not run."
    told = "missed, as it must" if not gate.passed(found[0]["measured"]) else "**passed too: the gate cannot tell**"
    return f"Planted fault ({gate.broken}): {told} ({measured(found[0])})."


def page(gates: list[Gate], notice: str) -> str:
    """The whole page."""
    run = [g for g in gates if results(g, broken=False)]
    lines = [HEAD.format(notice=notice)]
    lines.append(f"{len(run)} of {len(gates)} gates have been run.")
    machines = costs()
    taken = [known["minutes"] for known in machines.values()]
    letters = ascii_uppercase[: len(machines)]
    heads = ["family", "gate", "verdict", *(f"minutes on {letter}" for letter in letters)]
    rows = [
        [g.family, f"[{g.name}](#{g.name})", verdict(g), *(str(minutes.get(g.name, "")) for minutes in taken)]
        for g in gates
    ]
    lines.append("\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows]))
    if machines:
        how = "`python -m benchmarks.evidence.cost`, which ends trainings after a few steps"
        told = [f"{of} is {known['date']}, {name}" for of, (name, known) in zip(letters, machines.items(), strict=True)]
        lines.append(f"Minutes: what one seed takes ({how}); none where that was not measured. {'; '.join(told)}.")
    for gate in gates:
        found = results(gate, broken=False)
        lines.append(f"## {gate.name}")
        lines.append(f"{gate.claim}\n\nThreshold: {gate.threshold}. Verdict: {verdict(gate)}.")
        rows = [f"- seed {r['seed']}: {measured(r)} ({r['date']}{trained_on(r)})" for r in found]
        if rows:
            lines.append("\n".join(rows))
            lines.append(f"Trained: {'; '.join(found[0]['trained']) or 'small networks on points'}.")
        if gate.earlier:
            lines.append(f"Before this form (at seed 0, where none is said): {gate.earlier}.")
        if gate.broken:
            lines.append(calibration(gate))
        lines.append(f"`python -m benchmarks.evidence {gate.name}`")
        pictures = [RESULTS / f"{gate.name}-seed{r['seed']}.png" for r in found]
        pictures = [p for p in pictures if p.is_file()]
        if pictures:
            if gate.pictured:
                lines.append(f"Pictured: {gate.pictured}.")
            lines.append(f"![Samples of {gate.name}](../benchmarks/results/evidence/{pictures[0].name})")
    return "\n\n".join(lines) + "\n"
