"""A trained model as a folder for others: what is in it, and the card that says so."""
