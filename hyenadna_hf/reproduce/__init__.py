"""Reproduction of published tables, with the published figures next to ours."""
