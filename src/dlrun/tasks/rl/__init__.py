"""Reinforcement learning: tasks, the collector of experience, replay, returns."""
