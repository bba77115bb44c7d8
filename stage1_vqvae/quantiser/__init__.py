"""Vectors to codes: one kind of quantiser a file, chosen in `choose`; and the search, updates, start and gradients that
they share.

Nothing here knows images, recordings or networks.
"""
