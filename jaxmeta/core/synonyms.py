"""What the field calls things, for the question "Did you mean ...?": one table for settings, one for options."""

from collections.abc import Collection, Mapping

SETTINGS = {
    "agent": "network policy model",
    "base": "rule_base",
    "batch_size": "batch sample_size",
    "cell": "rule_cell rnn rnn_type cell_type",
    "clip": "clip_eps clip_epsilon clip_range clip_ratio clip_param ppo_clip",
    "context": "context_length seq_len sequence_length window",
    "discount": "gamma discount_factor",
    "double": "double_dqn double_q ddqn",
    "dueling": "dueling_dqn",
    "entropy": "ent_coef entropy_coef entropy_coeff entropy_coefficient entropy_weight entropy_bonus",
    "epochs": "num_epochs n_epochs ppo_epochs update_epochs",
    "epsilon": "eps exploration_rate",
    "epsilon_decay": "eps_decay",
    "final_entropy_fraction": "entropy_left",
    "final_learning_rate_fraction": "learning_rate_left lr_decay anneal_lr lr_schedule",
    "fine_tune": "fine_tuned",
    "form": "generated map_form",
    "gae_lambda": "lambda lambda_ lam gae td_lambda",
    "gradient_estimator": "outer_gradient meta_gradient",
    "heads": "num_heads n_heads",
    "hidden": "hidden_size hidden_sizes hidden_dim hidden_dims hidden_units hidden_layers layers layer_sizes "
    "width num_layers n_layers num_units net_arch",
    "huber": "huber_delta huber_loss delta",
    "initial_scale": "log_std init_std action_std",
    "inner.learning_rate": "lr alpha step_size stepsize inner_lr lr_inner fast_lr adapt_lr adaptation_lr "
    "inner_learning_rate",
    "inner.max_gradient_norm": "max_inner_norm grad_clip gradient_clip gradient_clipping clip_norm clip_grad_norm "
    "max_norm max_grad_norm",
    "inner_entropy": "ent_coef entropy_coef entropy_coeff entropy_coefficient entropy_weight entropy_bonus",
    "layers": "attention_layers num_layers n_layers",
    "lifetimes_per_task": "lives_per_task num_lives trials_per_task",
    "loss": "outer_loss",
    "meta_steps": "iterations num_iterations n_iterations meta_iterations num_meta_steps outer_steps "
    "num_outer_steps num_updates updates train_steps training_steps max_steps total_steps "
    "total_timesteps",
    "minibatches": "num_minibatches n_minibatches mini_batches num_mini_batch minibatch_size",
    "n_step": "n_steps nstep multi_step",
    "network": "rule",
    "normalised": "normalized norm_adv normalize_advantage normalize_advantages normalise_advantages",
    "num_adaptations": "rounds episodes num_episodes num_rounds n_rounds adaptations",
    "num_envs": "envs n_envs num_environments environments num_workers",
    "num_perturbations": "population pop_size popsize population_size",
    "num_query_envs": "query_envs eval_envs num_eval_envs",
    "num_sources": "sources",
    "num_steps": "inner_steps num_inner_steps inner_updates num_inner_updates gradient_steps grad_steps "
    "update_steps adaptation_steps num_adaptation_steps k",
    "num_updates": "map_steps",
    "optimizer": "inner_optimizer optim opt",
    "outer.learning_rate": "outer_learning_rate lr alpha step_size stepsize outer_lr lr_outer meta_lr "
    "meta_learning_rate outer_step_size",
    "outer.max_gradient_norm": "grad_clip gradient_clip gradient_clipping clip_norm clip_grad_norm max_norm "
    "max_grad_norm",
    "perturbation_scale": "perturbation sigma noise_std",
    "pooling": "encoder",
    "readout": "reading",
    "regenerate": "renewed",
    "remat": "checkpointing gradient_checkpointing rematerialize",
    "replay_capacity": "replay_rounds buffer_size replay_size memory_size capacity",
    "rollout_length": "steps num_steps n_steps rollout_steps unroll_length horizon episode_length",
    "scored": "scored_rounds",
    "source_selection": "reads",
    "surrogate": "estimator",
    "target_step_size": "tau polyak target_tau target_update",
    "task_embedding": "representation",
    "tasks_per_batch": "num_tasks n_tasks tasks meta_batch_size task_batch_size meta_batch",
    "temperature": "tau temp",
    "trial_rollouts": "trial_rounds",
    "truncation_length": "stretch truncation",
    "trust_region": "outer_update",
    "value_weight": "vf_coef value_coef value_loss_coef critic_coef",
    "width": "memory_width rnn_size gru_size lstm_size rnn_hidden rnn_hidden_size hidden_size hidden_dim",
}
"""By name of a setting, what else it goes by; what may be one or the other stands under both."""
OPTIONS = {
    "--agent": "model policy network net",
    "--algorithm": "algo alg method learner",
    "--config": "cfg config_file",
    "--checkpoint-every": "save_every save_interval save_freq checkpoint_interval checkpoint_freq",
    "--devices": "device gpu gpus num_gpus num_devices tpus",
    "--log": "wandb mlflow trackio logger tracker",
    "--json": "output out output_file",
    "--log-every": "log_interval log_freq logging_steps",
    "--markdown": "md",
    "--meta-steps": "steps num_steps iterations iters num_iterations timesteps total_timesteps total_steps max_steps "
    "train_steps updates num_updates epochs num_epochs episodes",
    "--num-tasks": "tasks n_tasks episodes num_episodes",
    "--out": "output html output_file",
    "--picture": "png plot figure image",
    "--pretrained": "model checkpoint",
    "--resume": "checkpoint ckpt load restore continue resume_from",
    "--run-dir": "output out output_dir out_dir outdir save_dir log_dir logdir workdir dir folder name exp_name "
    "checkpoint_dir",
    "--seed": "random_seed rng_seed random_state",
    "--seeds": "num_seeds n_seeds",
    "--set": "settings params hparams hyperparameters override",
    "--sweep": "grid grid_search search",
    "--tasks": "env environment env_id env_name task task_distribution family benchmark",
}
"""The same for options of the command line."""


def meant(table: Mapping[str, str], word: str, known: Collection[str]) -> list[str]:
    """The known names that a word may stand for, in the order of the table.

    >>> meant(SETTINGS, "rounds", ["num_adaptations"]), meant(OPTIONS, "--Env-ID", ["--tasks"])
    (['num_adaptations'], ['--tasks'])
    """
    plain = word.lower().lstrip("-").replace("-", "_")
    return [name for name, words in table.items() if name in known and plain in words.split()]
