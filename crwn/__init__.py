"""One continual-learning trial, in pure PyTorch: specs, data, methods, engine."""
