"""Meta-reinforcement learning in JAX: pure functions, one compiled meta-step.

The names below are loaded when they are first used, so that `import jaxmeta` and `jaxmeta --help` stay fast.
"""

from importlib import metadata
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from jaxmeta.algorithms.baselines import FinetuneConfig as FinetuneConfig
    from jaxmeta.algorithms.baselines import ScratchConfig as ScratchConfig
    from jaxmeta.algorithms.baselines import finetune as finetune
    from jaxmeta.algorithms.baselines import scratch as scratch
    from jaxmeta.algorithms.hyper_policy import HyperPolicyConfig as HyperPolicyConfig
    from jaxmeta.algorithms.hyper_policy import hyper_policy as hyper_policy
    from jaxmeta.algorithms.hypernetwork import HypernetworkConfig as HypernetworkConfig
    from jaxmeta.algorithms.hypernetwork import hypernetwork as hypernetwork
    from jaxmeta.algorithms.learned_optimizer import LearnedOptimizerConfig as LearnedOptimizerConfig
    from jaxmeta.algorithms.learned_optimizer import learned_optimizer as learned_optimizer
    from jaxmeta.algorithms.maml import ANILConfig as ANILConfig
    from jaxmeta.algorithms.maml import FOMAMLConfig as FOMAMLConfig
    from jaxmeta.algorithms.maml import MAMLConfig as MAMLConfig
    from jaxmeta.algorithms.maml import MetaSGDConfig as MetaSGDConfig
    from jaxmeta.algorithms.maml import anil as anil
    from jaxmeta.algorithms.maml import fomaml as fomaml
    from jaxmeta.algorithms.maml import maml as maml
    from jaxmeta.algorithms.maml import meta_sgd as meta_sgd
    from jaxmeta.algorithms.mapping import MappingConfig as MappingConfig
    from jaxmeta.algorithms.mapping import mapping as mapping
    from jaxmeta.algorithms.registry import make_learner as make_learner
    from jaxmeta.algorithms.reptile import ReptileConfig as ReptileConfig
    from jaxmeta.algorithms.reptile import reptile as reptile
    from jaxmeta.algorithms.rl2 import MANNConfig as MANNConfig
    from jaxmeta.algorithms.rl2 import RL2Config as RL2Config
    from jaxmeta.algorithms.rl2 import SNAILConfig as SNAILConfig
    from jaxmeta.algorithms.rl2 import mann as mann
    from jaxmeta.algorithms.rl2 import rl2 as rl2
    from jaxmeta.algorithms.rl2 import snail as snail
    from jaxmeta.core.compilation_cache import use_compilation_cache as use_compilation_cache
    from jaxmeta.core.config import AdaptationConfig as AdaptationConfig
    from jaxmeta.core.errors import NonFiniteError as NonFiniteError
    from jaxmeta.core.errors import StorageError as StorageError
    from jaxmeta.core.errors import UsageError as UsageError
    from jaxmeta.core.tasks import make_tasks as make_tasks
    from jaxmeta.core.types import MetaLearner as MetaLearner
    from jaxmeta.core.types import MetaState as MetaState
    from jaxmeta.core.types import TaskDistribution as TaskDistribution
    from jaxmeta.inner.gradient import GradientConfig as GradientConfig
    from jaxmeta.inner.gradient import InnerOptimizerConfig as InnerOptimizerConfig
    from jaxmeta.outer.meta_gradient import MetaGradientConfig as MetaGradientConfig
    from jaxmeta.outer.objectives import ObjectiveConfig as ObjectiveConfig
    from jaxmeta.outer.ppo import PPOConfig as PPOConfig
    from jaxmeta.reporting.animation import Animation as Animation
    from jaxmeta.reporting.comparison import compare as compare
    from jaxmeta.reporting.curves import plot_adaptation as plot_adaptation
    from jaxmeta.reporting.curves import plot_curves as plot_curves
    from jaxmeta.reporting.curves import plot_training as plot_training
    from jaxmeta.reporting.looks import PLOT_STYLE as PLOT_STYLE
    from jaxmeta.reporting.plots import plot_comparison as plot_comparison
    from jaxmeta.reporting.plots import plot_scores as plot_scores
    from jaxmeta.reporting.run import Evaluation as Evaluation
    from jaxmeta.reporting.run import Run as Run
    from jaxmeta.reporting.run import evaluate as evaluate
    from jaxmeta.reporting.run import load as load
    from jaxmeta.reporting.run import train as train
    from jaxmeta.rl.actor_critic import ActorCriticConfig as ActorCriticConfig
    from jaxmeta.rl.q_learning import DQNConfig as DQNConfig
    from jaxmeta.rl.q_learning import TabularQConfig as TabularQConfig
    from jaxmeta.training.checkpoints import CheckpointError as CheckpointError
    from jaxmeta.training.checkpoints import state_digest as state_digest
    from jaxmeta.training.export import export_optimizer as export_optimizer
    from jaxmeta.training.loop import Hooks as Hooks

__version__ = metadata.version("jaxmeta")
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "algorithms.baselines": ["scratch", "finetune", "ScratchConfig", "FinetuneConfig"],
        "algorithms.hyper_policy": ["hyper_policy", "HyperPolicyConfig"],
        "algorithms.hypernetwork": ["hypernetwork", "HypernetworkConfig"],
        "algorithms.learned_optimizer": ["learned_optimizer", "LearnedOptimizerConfig"],
        "algorithms.maml": [
            "maml",
            "fomaml",
            "anil",
            "meta_sgd",
            "MAMLConfig",
            "FOMAMLConfig",
            "ANILConfig",
            "MetaSGDConfig",
        ],
        "algorithms.mapping": ["mapping", "MappingConfig"],
        "algorithms.registry": ["make_learner"],
        "algorithms.reptile": ["reptile", "ReptileConfig"],
        "algorithms.rl2": ["rl2", "mann", "snail", "RL2Config", "MANNConfig", "SNAILConfig"],
        "core.config": ["AdaptationConfig"],
        "inner.gradient": ["GradientConfig", "InnerOptimizerConfig"],
        "outer.meta_gradient": ["MetaGradientConfig"],
        "outer.objectives": ["ObjectiveConfig"],
        "outer.ppo": ["PPOConfig"],
        "reporting.run": ["Run", "Evaluation", "evaluate", "load", "train"],
        "rl.actor_critic": ["ActorCriticConfig"],
        "rl.q_learning": ["DQNConfig", "TabularQConfig"],
        "core.compilation_cache": ["use_compilation_cache"],
        "core.errors": ["NonFiniteError", "StorageError", "UsageError"],
        "core.tasks": ["make_tasks"],
        "core.types": ["MetaLearner", "MetaState", "TaskDistribution"],
        "reporting.animation": ["Animation"],
        "reporting.comparison": ["compare"],
        "reporting.curves": ["plot_adaptation", "plot_curves", "plot_training"],
        "reporting.looks": ["PLOT_STYLE"],
        "reporting.plots": ["plot_comparison", "plot_scores"],
        "training.checkpoints": ["CheckpointError", "state_digest"],
        "training.export": ["export_optimizer"],
        "training.loop": ["Hooks"],
    },
)
