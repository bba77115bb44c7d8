"""The verbs that train: one model, all of a recipe, or all baselines with equal budgets.

The loop is `twostage.training`, losses are with their models; here stands only what is trained when, and on what.
"""
