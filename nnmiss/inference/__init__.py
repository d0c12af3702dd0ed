"""Predictors: one subset, each case's own, or all subsets with the encoders' work shared."""
