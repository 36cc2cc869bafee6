"""A short run through the command line, on real Fashion-MNIST where it is on disk: train, stop, go on, sample, judge.

    python scripts/smoke.py [--steps 400]

Fails on any exit code, file or number that is not as it should be. The run that was stopped must end with the same
weights, bit for bit, as the one that was not. Takes about a minute on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from elegan.data.idx import find_named

ELEGAN = [sys.executable, "-m", "elegan"]
LONGEST = 240  # seconds for any one command


def elegan(*arguments: str | Path, code: int = 0) -> str:
    """Run a command; its output. Ends the smoke run unless the exit code is `code`."""
    start = time.monotonic()
    done = subprocess.run([*ELEGAN, *map(str, arguments)], capture_output=True, text=True, timeout=LONGEST, check=False)
    print(f"  {time.monotonic() - start:5.1f} s  elegan {' '.join(map(str, arguments))}", flush=True)
    if done.returncode != code or "Traceback" in done.stderr:
        sys.exit(f"exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def train_and_interrupt(command: list[str], out: Path) -> None:
    """Start training, press Ctrl-C once it has made some steps, and check that it stopped in order."""
    process = subprocess.Popen([*ELEGAN, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + LONGEST
        while not (out / "stats.jsonl").exists():  # the first row stands after the first steps
            check(process.poll() is None and time.monotonic() < deadline, "training did not get going", process)
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LONGEST)
    finally:
        process.kill()
    check(process.returncode == 130, f"exit code {process.returncode} after Ctrl-C, expected 130\n{output}")
    check("stopped and saved" in output, f"no word about how to go on\n{output}")
    print(f"         interrupted: {output.strip().splitlines()[-1]}", flush=True)


def check(true: bool, otherwise: str, process: subprocess.Popen[str] | None = None) -> None:
    """End the smoke run with a message unless `true`."""
    if not true:
        if process is not None:
            process.kill()
            otherwise += f"\n{process.communicate()[0]}"
        sys.exit(f"smoke run failed: {otherwise}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps

    data = "fashion-mnist"
    if any(find_named(data, split) is None for split in ("train", "test")):
        data = "garments"
        print("  real data is absent (ELEGAN_DATA, ./data, ../shared/data, the cache): the drawn garments instead")
    with tempfile.TemporaryDirectory(prefix="elegan-smoke-") as name:
        folder = Path(name)
        whole, parted = folder / "whole", folder / "parted"
        settings = ["--preset", "tiny", "--data", data, "--precision", "fp32", "--steps", str(steps)]
        settings += ["--set", "log_every=20", "--set", "checkpoint_every=100"]
        elegan("train", *settings, "--out", whole)
        train_and_interrupt(["train", *settings, "--out", str(parted)], parted)
        elegan("train", *settings, "--out", parted)
        last = f"checkpoints/{16 * steps:09}.safetensors"
        check((whole / last).read_bytes() == (parted / last).read_bytes(), "the resumed run ended with other weights")

        for file in ("config.yaml", "stats.jsonl", "samples.png", "training.gif", "losses.png"):
            check((parted / file).stat().st_size > 0, f"{file} is empty")
        elegan("sample", parted, "-n", "2000", "--seed", "1", "--out", folder / "samples.npz")
        elegan("sample", parted, "-n", "20", "--columns", "5", "--out", folder / "samples.png")
        with np.load(folder / "samples.npz") as samples:
            check(samples["images"].shape == (2000, 28, 28, 1), f"samples are {samples['images'].shape}")
            check(samples["images"].std() > 1, "all samples are flat")
        with Image.open(folder / "samples.png") as sheet:
            check(sheet.width > sheet.height > 100, f"the sheet is {sheet.size}")

        scores = json.loads(elegan("evaluate", folder / "samples.npz", "--data", data, "-n", "2000", "--json"))
        value, floor = scores["value"], scores["floor"]
        check(math.isfinite(value["frechet"]) and value["frechet"] > floor["frechet"], f"scores {value}, {floor}")
        elegan("report", parted, "--out", folder / "report.html", "--samples", "500")
        page = (folder / "report.html").read_text(encoding="utf-8")
        check("single out one training image" in page and page.count("<figure") > 10, "the report is not whole")
        info = json.loads(elegan("info", parted, "--json"))
        check(info["images"] == 16 * steps, f"info says {info['images']} images")
        for verb in ("presets", "families", "doctor"):
            check(bool(json.loads(elegan(verb, "--json"))), f"{verb} says nothing")
        check(data in elegan("data", "inspect", data), "data inspect does not name its data")
        elegan("train", "--preset", "fashoin", code=2)


if __name__ == "__main__":
    main()
