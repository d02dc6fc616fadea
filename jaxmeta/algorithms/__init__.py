"""Meta-learning algorithms: one file each, with variants, with settings, what differs by task family, and a function.

An algorithm is a function of tasks and a configuration that composes a `MetaLearner` of an agent, an inner loop, an
objective and an outer rule: `maml` and variants, `reptile`, `learned_optimizer`, `hyper_policy`, `hypernetwork`,
`mapping`, `rl2` and variants, and `baselines`. `registry` finds them by name; `families` has what several share.
"""
