"""Whether RL² does better trained on trials of its lifetime's rounds, or of one round more: the one that is scored.

    python benchmarks/trial_rounds.py --runs runs/trial_rounds --out benchmarks/results/trial_rounds.json

By the protocol of the scoreboard, from which it takes families, seeds and budgets: longer trials are fewer. On the
scoreboard, learners in context are trained on what is better here.
"""

from typing import Any

import protocol
import validation


def variants(family: str) -> dict[str, dict[str, Any]]:
    """By their names, trials of the rounds of a lifetime, and of one more."""
    rounds = protocol.FAMILIES[family].in_context["adaptation.num_adaptations"]
    return {f"{number} rounds": {"outer.trial_rollouts": number} for number in (rounds, rounds + 1)}


def main() -> None:
    options = validation.parser(__doc__).parse_args()
    reported = "Trials that RL² is trained on"
    validation.compare("trial_rounds.py", reported, options, "rl2", protocol.FORMS["full"], variants)


if __name__ == "__main__":
    main()
