"""Training with the stock `transformers.Trainer`."""
