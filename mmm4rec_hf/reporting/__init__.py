"""What runs came to, for people who were not there: one page of words, tables and pictures."""

from .report import write_report
from .runs import Run, read_run, read_runs

__all__ = ["Run", "read_run", "read_runs", "write_report"]
