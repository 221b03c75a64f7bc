"""Baseline models to compare HyenaDNA with."""
