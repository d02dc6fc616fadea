"""What keeping a run costs, and whether its memory stays where it is over ten thousand chunks.

    python benchmarks/endurance.py --out benchmarks/results/endurance.json

The share that saving takes is measured on the main job, which saves a checkpoint after every log point and after none,
in turns: a pair's difference, over how many were saved, is what one costs; a run that saves one a minute loses that in
every minute.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from throughput import machine

import jaxmeta
from jaxmeta.evaluation import statistics
from jaxmeta.training.run_directory import write_json, write_text

CHUNKS = 10_000
TINY: dict[str, Any] = {
    "adaptation.num_envs": 2,
    "adaptation.num_adaptations": 1,
    "agent.hidden": (4,),
    "objective.num_query_envs": 2,
    "objective.lifetimes_per_task": 1,
    "outer.tasks_per_batch": 2,
}
META_STEPS, LOG_EVERY = 100, 5
"""Of the main job."""
PAIRS = 5


def resident() -> int:
    """Bytes of memory that this process holds, by Linux's account."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def soak(folder: Path) -> dict[str, Any]:
    """Resident memory of this process along a run of many chunks, with a checkpoint every hundred."""
    seen: list[int] = []

    def look(record: dict[str, Any]) -> None:
        if record["meta_step"] % (CHUNKS // 20) == 0:
            seen.append(resident())

    start = time.perf_counter()
    jaxmeta.train(
        "maml",
        "probe",
        TINY,
        hooks=jaxmeta.Hooks(on_log=look),
        show_progress=False,
        meta_steps=CHUNKS,
        log_every=1,
        checkpoint_every=100,
        run_dir=folder,
    )
    half = len(seen) // 2
    growth = np.polyfit(np.arange(half), seen[half:], 1)[0] * half
    return {"chunks": CHUNKS, "seconds": time.perf_counter() - start, "resident": seen, "growth_of_second_half": growth}


def saving(folder: Path) -> dict[str, Any]:
    """Seconds that a checkpoint costs the main job."""

    def seconds(name: str, every: int) -> float:
        """Of training, without its compilation and its last checkpoint."""
        at: list[float] = []
        jaxmeta.train(
            hooks=jaxmeta.Hooks(on_log=lambda record: at.append(time.time())),
            show_progress=False,
            meta_steps=META_STEPS,
            log_every=LOG_EVERY,
            checkpoint_every=every,
            run_dir=folder / name,
        )
        return at[-1] - at[0]

    points = META_STEPS // LOG_EVERY
    costs = []
    for pair in range(1 + PAIRS):
        saved, unsaved = seconds(f"saved{pair}", 1), seconds(f"unsaved{pair}", 10**6)
        costs.append((saved - unsaved) / (points - 1))
        print(f"pair {pair}: {saved:.2f} s and {unsaved:.2f} s", flush=True)
    costs = np.array(costs[1:])  # the first pair compiles
    low, high = statistics.bootstrap_interval(costs[:, None], trim=0)
    share = statistics.mean(costs[:, None]) / 60
    return {
        "pairs": PAIRS,
        "seconds_a_checkpoint": costs.tolist(),
        "share_at_one_a_minute": share,
        "ci95": [low / 60, high / 60],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        content = {
            "command": f"python benchmarks/endurance.py --out {options.out}",
            "machine": machine(),
            "saving": saving(Path(folder)),
            "soak": soak(Path(folder) / "soak"),
        }
    write_json(options.out, content)
    soaked, saved = content["soak"], content["saving"]
    low, high = (f"{100 * bound:.2f}" for bound in saved["ci95"])
    early, late, growth = (
        f"{size / 1e6:,.1f} MB"
        for size in (soaked["resident"][0], soaked["resident"][-1], soaked["growth_of_second_half"])
    )
    text = (
        f"# Endurance\n\nMade by `{content['command']}`\n\n"
        f"A checkpoint a minute takes {100 * saved['share_at_one_a_minute']:.2f} % of the main job's time "
        f"({low} to {high}).\n\n"
        f"Over {soaked['chunks']:,} chunks, each a line in the journal and every hundredth a checkpoint,\n"
        f"resident memory went from {early} (after a twentieth) to {late}; along its second half it grew by {growth}.\n"
    )
    write_text(options.out.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
