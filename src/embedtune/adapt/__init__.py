"""Adapters on the queries of models that cannot be tuned: how they are fitted and chosen."""

from embedtune.adapt.choose import Fitting, Recipe, Trial, best_of, fit, try_all, try_ranks
from embedtune.adapt.lesson import Lesson

__all__ = ["Fitting", "Lesson", "Recipe", "Trial", "best_of", "fit", "try_all", "try_ranks"]
