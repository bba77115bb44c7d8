"""Files that people look at or listen to: PNG, WAV, figures, spectrograms, HTML, console. No model, no run."""
