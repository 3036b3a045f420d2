"""Tracking: runs and artifacts in MLflow, its registry, and the model as MLflow serves it."""
