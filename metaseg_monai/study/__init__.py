"""Data set x variant x seed: planned, run, resumed, compared and reported."""

from metaseg_monai.study.design import Protocol, Study

__all__ = ["Protocol", "Study"]
