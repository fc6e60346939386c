"""The report: what a run found, as one page that works from disk, and a model card."""

from embedtune.report.build import (
    ProbeFacts,
    Report,
    ReportFacts,
    SplitFacts,
    TrainingFacts,
    build_report,
)
from embedtune.report.card import model_card

__all__ = [
    "ProbeFacts",
    "Report",
    "ReportFacts",
    "SplitFacts",
    "TrainingFacts",
    "build_report",
    "model_card",
]
