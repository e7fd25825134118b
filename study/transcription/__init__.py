"""A trained network at work: recordings in, text out. Knows neither Optuna nor the training."""
