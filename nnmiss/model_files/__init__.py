"""Trained models as zip archives that run nothing: written by one machine, checked and installed by another."""
