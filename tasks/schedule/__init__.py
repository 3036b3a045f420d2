"""Recipes on a schedule: Prefect deployments, what they need of the server, and how a scheduled run ends."""
