"""Verbs that train: one model, all of a recipe, or all baselines with equal budgets."""
