"""Evaluation of classification: metrics of every subset of modalities with bootstrap intervals, tables and figures."""
