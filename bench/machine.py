"""What a benchmark ran on, and what each process used: recorded beside every result."""

from __future__ import annotations

import os
import platform
import re
import sys
import sysconfig
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

_OPTIMISED: Final = ("--enable-optimizations", "--with-lto")
_NAMES: Final = (
    (re.compile(r"-m services\.(\w+)"), r"\1"),
    (re.compile(r"-m cli up"), "tollway up"),
    (re.compile(r"-m edge_proxy\.worker"), "edge worker"),
    (re.compile(r"-m edge_proxy"), "edge supervisor"),
    (re.compile(r"-m graphql_gateway"), "gateway"),
    (re.compile(r"-m demo\.upstream"), "demo upstream"),
    (re.compile(r"redis-server|valkey-server"), "redis"),
    (re.compile(r"postgres"), "postgresql"),
    (re.compile(r"nginx: worker"), "nginx worker"),
    (re.compile(r"nginx"), "nginx master"),
)


def describe() -> dict[str, str | int]:
    """Return processor, cores, kernel and interpreter with its build flags."""
    flags = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_build": " ".join(flag for flag in _OPTIMISED if flag in flags) or _unrecorded_build(),
    }


def _unrecorded_build() -> str:
    """Debian builds with profiles and link-time optimisation in its packaging rules, which leave no configure flag."""
    interpreter = Path(sys.executable).resolve()
    if interpreter.is_relative_to("/usr/bin"):
        return f"{interpreter}, the distribution's own build"
    return "no optimisation flags: expect pure Python to be 1.3 to 1.9 times slower"


def name_of(process: psutil.Process) -> str:
    """Return a short name for one of our processes, from its command line."""
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return "gone"
    for pattern, name in _NAMES:
        match = pattern.search(command)
        if match:
            return match.expand(name)
    return process.name()


def pin(process: psutil.Process, core: int) -> None:
    """Keep every thread of a process on one core."""
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Processor time so far: seconds per process name, and (busy, all) seconds per core."""

    cpu_seconds: dict[str, float]
    cores: tuple[tuple[float, float], ...]

    def since(self, earlier: Usage) -> Usage:
        """Return what was used after `earlier`."""
        return Usage(
            cpu_seconds={name: spent - earlier.cpu_seconds.get(name, 0.0) for name, spent in self.cpu_seconds.items()},
            cores=tuple(
                (busy - busy_before, total - total_before)
                for (busy, total), (busy_before, total_before) in zip(self.cores, earlier.cores, strict=True)
            ),
        )


def usage(processes: list[psutil.Process]) -> Usage:
    """Read the processor time of processes and cores."""
    spent: defaultdict[str, float] = defaultdict(float)
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent[name_of(process)] += times.user + times.system
    cores = []
    for core in psutil.cpu_times(percpu=True):
        total = sum(core[:8])
        cores.append((total - core.idle - core.iowait, total))
    return Usage(cpu_seconds=dict(spent), cores=tuple(cores))
