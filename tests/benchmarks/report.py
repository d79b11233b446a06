"""Collects what benchmarks measured and prints it as one Markdown table, with the machine and the command, at the end of the session."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    ours: str
    rival: str
    ratio: float | None
    goal: str
    note: str


lines: list[Line] = []


def row(name: str, ours: str, rival: str, ratio: float | None, goal: str, note: str = "") -> None:
    """One measured figure: ours and the rival's as text with units, the ratio rival/ours where there is one, the goal, and how it was measured."""
    lines.append(Line(name, ours, rival, ratio, goal, note))


def table() -> str:
    """The lines so far as a Markdown table."""
    head = "| what | ours | rival | ratio | goal | how |\n|---|---|---|---|---|---|"
    body = [
        f"| {line.name} | {line.ours} | {line.rival} | {'–' if line.ratio is None else f'{line.ratio:.1f} ×'} | {line.goal} | {line.note} |"
        for line in lines
    ]
    return "\n".join([head, *body])


def machine() -> str:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = next(
        (
            text.partition(":")[2].strip()
            for text in Path("/proc/cpuinfo").read_text().splitlines()
            if text.startswith("model name")
        ),
        platform.processor(),
    )
    return (
        f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Python {platform.python_version()}, {platform.system()}"
    )
