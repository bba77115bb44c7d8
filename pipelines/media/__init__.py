"""What people look at or listen to: PNG, WAV, figures, spectrograms, HTML, the console.

It is given arrays and words and knows neither models nor runs.
"""
