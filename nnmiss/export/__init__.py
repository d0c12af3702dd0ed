"""Predictions as others want them: official BraTS files, checks of submissions, colour tables."""
