"""Runs as objects, and everything that people look at.

`run` is a run as an object. `cells`, `pooling`, `naming` and `comparison` collect results, `findings` words
them, `tables` and `columns` print them, `plots` and `curves` draw them in one scheme (`looks`), `html` writes a page.
`animation` draws a lifetime. `inspection` describes a run, or a plan, `catalogue` what there is to choose from, `cards`
an exported learner; `progress` and `timings` show how far work is, `command_lines` spells what repeats a result.
"""
