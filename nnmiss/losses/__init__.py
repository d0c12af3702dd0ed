"""Distillation losses on (B, C, *spatial); without spatial axes they are the classification losses."""
