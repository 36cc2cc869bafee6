"""Scores as text, Markdown and LaTeX. Every form ends with the protocol: a number without it compares with nothing."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from elegan.metrics.scores import ClassNumbers, ClassScores, Numbers, Scores

#: field, title, digits after the point where there is no error, what is good; None: a gap between groups
ROWS = (
    ("frechet", "Frechet distance", 3, "lower"),
    ("kernel", "kernel distance", 4, "lower"),
    ("wasserstein", "sliced Wasserstein", 4, "lower"),
    ("classifier_score", "classifier score", 2, "higher"),
    None,
    ("precision", "precision", 3, "higher"),
    ("recall", "recall", 3, "higher"),
    ("density", "density", 3, "near 1"),
    ("coverage", "coverage", 3, "higher"),
    ("modes", "modes found, of 1000", 0, "higher"),
    ("modes_kl", "KL to equal modes", 3, "as floor"),
    ("modes_kl_real", "KL to real modes", 3, "as floor"),
    None,
    ("diversity", "diversity in a class", 3, "near 1"),
    ("ms_ssim", "MS-SSIM in a class", 3, "as floor"),
    ("class_entropy", "class entropy, bits", 3, "as floor"),
    ("label_accuracy", "label accuracy", 3, "higher"),
    ("cas", "train here, test real", 3, "higher"),
    None,
    ("sharpness", "sharpness", 3, "near 1"),
    ("top_octave", "finest detail", 3, "near 1"),
    ("spectrum", "spectrum, dB off real", 3, "lower"),
    None,
    ("copy_ratio", "copy distance ratio", 3, "near 1"),
    ("nearer", "nearer than test", 3, "near 0.5"),
    ("copies", "copies", 4, "as floor"),
    ("authenticity", "authenticity", 3, "as floor"),
)

#: field, short title, whether higher is better: the columns of a row in Markdown and LaTeX
COLUMNS = (
    ("frechet", "Frechet", False),
    ("kernel", "kernel", False),
    ("precision", "precision", True),
    ("recall", "recall", True),
    ("density", "density", None),
    ("coverage", "coverage", True),
    ("classifier_score", "class score", True),
    ("modes", "modes", True),
    ("modes_kl", "modes KL", False),
    ("label_accuracy", "label acc.", True),
    ("cas", "CAS", True),
    ("copies", "copies", None),
    ("authenticity", "authenticity", None),
)

#: the same for the table of classes
CLASS_COLUMNS = (
    ("frechet", "Frechet", False),
    ("precision", "precision", True),
    ("recall", "recall", True),
    ("coverage", "coverage", True),
    ("label_accuracy", "label acc.", True),
    ("diversity", "diversity", None),
    ("cas", "CAS", True),
)
ARROWS = {True: (" ↑", r" $\uparrow$"), False: (" ↓", r" $\downarrow$"), None: ("", "")}
REAL = "real images"
WIDTH = 100  # of the protocol as text


def text(scores: Scores, per_class: bool = False) -> str:
    """For a terminal: a line a number, then the classes, then the protocol."""
    lines = [f"{'':22}{'value':>20}{'floor':>20}  better"]
    for row in ROWS:
        if row is None:
            if lines[-1]:
                lines.append("")
            continue
        field, title, digits, good = row
        if getattr(scores.value, field) is not None:
            value, floor = (_cell(numbers, field, digits) for numbers in (scores.value, scores.floor))
            lines.append(f"{title:22}{value:>20}{floor:>20}  {good}")
    if scores.value.class_shares is not None:
        lines += ["", *_share_lines(scores)]
    if per_class and scores.per_class:
        lines += ["", *_class_lines(scores.per_class)]
    protocol = [textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in scores.protocol.lines()]
    return "\n".join([*lines, "", *protocol])


def markdown(scores: Scores, name: str = "samples", per_class: bool = False) -> str:
    """A table with a row for the samples and one for real images; `per_class` adds a table of classes."""
    out = []
    for header, rows in _grids(scores, name, per_class, 0, " ± "):
        out.append("| " + " | ".join(header) + " |")
        out.append("| --- |" + " ---: |" * (len(header) - 1))
        out += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        out.append("")
    return "\n".join([*out, *(f"- {line}" for line in scores.protocol.lines())]).replace("+-", "±")


def latex(scores: Scores, name: str = "samples", per_class: bool = False) -> str:
    """A `tabular` with a row for the samples and one for real images; needs the package booktabs."""
    out = ["% \\usepackage{booktabs}"]
    for header, rows in _grids(scores, name, per_class, 1, r" \pm "):
        out += [
            f"\\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            "\\toprule",
            " & ".join(header) + " \\\\",
            "\\midrule",
        ]
        out += [
            " & ".join([_escaped(row[0]), *(f"${cell}$" if cell != "-" else "--" for cell in row[1:])]) + " \\\\"
            for row in rows
        ]
        out += ["\\bottomrule", "\\end{tabular}", ""]
    protocol = ". ".join(line[0].upper() + line[1:] for line in scores.protocol.lines())
    return "\n".join([*out, f"{{\\footnotesize {_escaped(protocol)}.}}"])


def pair(value: float | None, error: float | None, digits: int, sign: str = " +- ") -> str:
    """`0.8712 +- 0.0034`: two significant digits of the error, and as many places of the value; `-` for None."""
    if value is None:
        return "-"
    if error is None:
        return f"{value:.{digits}f}"
    places = min(max(1 - math.floor(math.log10(error)), 0), 6) if error > 1e-9 else digits
    return f"{value:.{places}f}{sign}{error:.{places}f}"


def _cell(numbers: Numbers | ClassNumbers, field: str, digits: int, sign: str = " +- ") -> str:
    return pair(getattr(numbers, field), getattr(numbers, f"{field}_error", None), digits, sign)


def _share_lines(scores: Scores) -> list[str]:
    """One line a class: its share in samples and in real images, and a bar."""
    value, floor = (_percents(numbers) for numbers in (scores.value, scores.floor))
    lines = []
    for i, (ours, real) in enumerate(zip(value, floor, strict=True)):
        name = scores.class_names[i] if i < len(scores.class_names) else f"class {i}"
        assert scores.value.class_shares is not None
        lines.append(f"{name[:20]:22}{ours:>20}{real:>20}  {'#' * round(100 * scores.value.class_shares[i])}")
    return lines


def _percents(numbers: Numbers) -> list[str]:
    """`9.8 +- 0.3 %` of each class."""
    shares, errors = numbers.class_shares or [], numbers.class_shares_error or []
    if len(errors) != len(shares):
        return [f"{100 * share:.1f} %" for share in shares]
    return [f"{100 * share:.1f} +- {100 * error:.1f} %" for share, error in zip(shares, errors, strict=True)]


def _class_lines(classes: list[ClassScores]) -> list[str]:
    """Two lines a class: its samples, and real images."""
    shown = [column for column in CLASS_COLUMNS if any(getattr(c.value, column[0]) is not None for c in classes)]
    widths = {field: 7 if field == "cas" else 13 for field, _, _ in shown}
    lines = [f"{'':14}" + "".join(f"{title:>{widths[field]}}" for field, title, _ in shown)]
    for c in classes:
        for name, numbers in ((c.name[:13], c.value), ("  real", c.floor)):
            cells = (f"{_short(numbers, field):>{widths[field]}}" for field, _, _ in shown)
            lines.append(f"{name:14}" + "".join(cells))
    return lines


def _short(numbers: ClassNumbers, field: str) -> str:
    """One significant digit of the error: there are a thousand images of a class, not ten thousand."""
    value, error = getattr(numbers, field), getattr(numbers, f"{field}_error", None)
    if value is None:
        return "-"
    if error is None or error < 1e-9:
        return f"{value:.3f}"
    places = min(max(-math.floor(math.log10(error)), 0), 4)
    return f"{value:.{places}f}+-{error:.{places}f}"


def _grids(scores: Scores, name: str, per_class: bool, form: int, sign: str) -> list[tuple[list[str], list[list[str]]]]:
    """Header and rows of each table; `form` 0 is Markdown, 1 LaTeX."""
    shown = [column for column in COLUMNS if getattr(scores.value, column[0]) is not None]
    digits = {row[0]: row[2] for row in ROWS if row}
    header = ["", *(title + ARROWS[better][form] for _, title, better in shown)]
    rows = [
        [title, *(_cell(numbers, field, digits[field], sign) for field, _, _ in shown)]
        for title, numbers in ((name, scores.value), (REAL, scores.floor))
    ]
    grids = [(header, rows)]
    if per_class and scores.per_class:
        known = [k for k in CLASS_COLUMNS if any(getattr(c.value, k[0]) is not None for c in scores.per_class)]
        header = ["class", "share", *(title + ARROWS[better][form] for _, title, better in known)]
        rows = [
            [title, _cell(numbers, "share", 3, sign), *(_cell(numbers, field, 3, sign) for field, _, _ in known)]
            for c in scores.per_class
            for title, numbers in ((c.name, c.value), (f"{c.name}, real", c.floor))
        ]
        grids.append((header, rows))
    return grids


def _escaped(plain: str) -> str:
    """Text for LaTeX."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "+-": r"$\pm$"}
    special |= {c: f"\\{c}" for c in "&%$#_{}"}
    out, at = [], 0
    while at < len(plain):
        width = 2 if plain[at : at + 2] in special else 1
        out.append(special.get(plain[at : at + width], plain[at : at + width]))
        at += width
    return "".join(out)
