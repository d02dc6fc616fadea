"""Which outer step size suits a memory: the one that RL² has was found for a GRU, and attention learns by another.

    python benchmarks/outer_steps.py --algorithm snail --runs runs/outer_steps --out benchmarks/results/outer_steps.json

By the protocol of the scoreboard, from which it takes families and budgets, but a share of the training and other
seeds: none of those that the scoreboard is then made with.
"""

from typing import Any

import protocol
import validation

STEP_SIZES = (3e-4, 1e-3, 3e-3)
FIRST_SEED = 100


def variants(_: str) -> dict[str, dict[str, Any]]:
    """By their names, the settings that are compared; the same in every family."""
    return {f"{size:g}": {"outer.learning_rate": size} for size in STEP_SIZES}


def main() -> None:
    parser = validation.parser(__doc__)
    parser.add_argument("--algorithm", choices=protocol.IN_CONTEXT, required=True)
    parser.add_argument("--share", type=float, default=0.25, help="of the scoreboard's training")
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    form = protocol.FORMS["full"]._replace(share=options.share, seeds=options.seeds, first_seed=FIRST_SEED)
    reported = f"Outer step sizes of `{options.algorithm}`, after {options.share:g} of the scoreboard's training"
    validation.compare("outer_steps.py", reported, options, options.algorithm, form, variants)


if __name__ == "__main__":
    main()
