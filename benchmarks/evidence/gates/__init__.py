"""The measurements: a function each, `measure(lab) -> {name: number}`."""
