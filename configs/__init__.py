"""The shipped recipes, one TOML file each; installed as `twostage_configs`, read by `twostage.config.load`. No code."""
