"""The targets of speed, each with what was measured and by how much it was missed, from `results/speed.json`."""

from __future__ import annotations

from typing import Any, NamedTuple

TF, PREDICT, PLAIN = "TensorFlow/Keras", "Keras, fakes by predict", "plain PyTorch"


class Target(NamedTuple):
    """One row: `measured` must be at least (`wanted` > 0) or at most (`most` > 0) what is asked."""

    what: str
    measured: float
    least: float | None = None
    most: float | None = None
    unit: str = "x"

    def row(self) -> str:
        """A line of the table."""
        wanted = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        if self.least is not None:
            missed = max(0.0, 1 - self.measured / self.least)
        else:
            assert self.most is not None
            missed = max(0.0, self.measured / self.most - 1)
        verdict = "met" if not missed else f"missed by {missed:.0%}"
        return f"| {self.what} | {wanted} {self.unit} | {self.measured:.2f} {self.unit} | {verdict} |"


def ratio(rows: dict[str, Any], preset: str, name: str, ours: str = "elegan bf16") -> float | None:
    """How many times slower contestant `name` is than ours (median of the rounds' ratios); None if not measured."""
    found = rows.get(preset, {}).get("slower_than", {}).get(ours, {}).get(name)
    return None if found is None else float(found)


def targets(results: dict[str, Any]) -> list[Target]:
    """All that can be said from what was measured."""
    rows = {row["preset"]: row for row in results.get("rows", [])}
    found: list[Target] = []

    def add(value: float | None, what: str, **limits: Any) -> None:
        if value is not None:
            found.append(Target(what, value, **limits))

    add(ratio(rows, "fashion-dcgan", TF), "`fashion-dcgan`, times as fast as TensorFlow", least=2)
    add(ratio(rows, "fashion-dcgan", PLAIN), "`fashion-dcgan`, times as fast as plain PyTorch", least=3.5)
    add(ratio(rows, "fashion-dcgan", TF, "elegan fp32"), "`fashion-dcgan` in float32, against TensorFlow", least=1)
    add(ratio(rows, "fashion-mlp", PREDICT), "`fashion-mlp`, times as fast as Keras, fakes by `predict`", least=10)
    add(ratio(rows, "fashion-mlp", TF), "`fashion-mlp`, the same, fakes by `predict_on_batch`", least=10)
    add(ratio(rows, "fashion-upsample", TF), "`fashion-upsample`, times as fast as TensorFlow", least=2)
    add(ratio(rows, "sampling", TF), "10,000 pictures of `fashion-dcgan` warm, times as fast as `predict`", least=3)
    for preset, bench in results.get("floors", {}).items():
        add(bench["ratio_to_floor"], f"`{preset}`, step over its floor", most=1.3)
    limits = {
        "sample": ("`elegan sample -n 10000` of `fashion-dcgan` to `.npz`", 3),
        "evaluate": ("`elegan evaluate`, 10,000 against 10,000, sampling included, the first time", 20),
        "evaluate_again": ("the same again, with the real side's features kept", 20),
        "help": ("`elegan --help`", 0.3),
        "info": ("`elegan info RUN`", 0.5),
    }
    for key, (what, most) in limits.items():
        add(results.get("commands", {}).get(key), what, most=most, unit="s")
    starts = results.get("starts")
    if starts:
        add(starts["first"], "`elegan train`, from the command to the end of the first step", most=10, unit="s")
        add(starts["again"], "the same again", most=5, unit="s")
        add(starts["memory_mb"] / 1000, "peak memory of training Fashion-MNIST", most=1.5, unit="GB")
    return found


def table(results: dict[str, Any]) -> list[str]:
    """The targets as Markdown."""
    lines = ["| target | wanted | measured | |", "|---|---|---|---|"]
    return lines + [target.row() for target in targets(results)]
