"""Runs as objects, and everything that people look at.

`run` is a run as an object. `cells` and `comparison` collect and pool results, `tables` and `columns` print them,
`plots` draws them, `html` writes them as a page. `animation` draws a lifetime. `inspection` describes a run, or a plan,
`catalogue` what there is to choose from, `cards` an exported learner; `progress` and `timings` show how far work is;
`command_lines` spells the command that repeats a result.
"""
