"""Declarative experiments for transformer models: a config says what to run, xp runs it, MLflow remembers it."""

__version__ = "0.1.0"
