"""Reward model training and PPO: what a step computes, and the programs that run it."""
