"""Everything that differs between kinds of data, one file a kind. Knows recipes and data sets, never a run."""
