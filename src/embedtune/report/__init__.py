"""The report: what a run found, as one page that works from disk, and a model card."""

from embedtune.report.build import Report, build_report
from embedtune.report.card import model_card
from embedtune.report.facts import (
    BaseFacts,
    CauseFacts,
    MergeFacts,
    ProbeFacts,
    ReportFacts,
    SplitFacts,
    TrainingFacts,
    TrialFacts,
)
from embedtune.report.texts import ReportSettings

__all__ = [
    "BaseFacts",
    "CauseFacts",
    "MergeFacts",
    "ProbeFacts",
    "Report",
    "ReportFacts",
    "ReportSettings",
    "SplitFacts",
    "TrainingFacts",
    "TrialFacts",
    "build_report",
    "model_card",
]
