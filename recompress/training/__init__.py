"""Training with transformers' ``Trainer``: baselines, further training, and the loop that distillation shares. ``recompress.training.run`` has the door."""
