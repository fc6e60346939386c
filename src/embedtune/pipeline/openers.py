"""Opens what systems name, so that no vector is made and no pair is read twice."""

from dataclasses import dataclass, field

from embedtune.embed import Embedder
from embedtune.embed.adapted import AdaptedEmbedder
from embedtune.embed.loading import PoolingMode
from embedtune.embed.recorded import RecordedEmbedder
from embedtune.embed.remote import Purse
from embedtune.evaluation.systems import System, open_embedder, open_reranker
from embedtune.pipeline.console import Console
from embedtune.retrieve.rerank import RecordedReranker
from embedtune.settings import Auto
from embedtune.store import Store


@dataclass(frozen=True, slots=True)
class Openers:
    """Embedders and cross-encoders with a memory, and one purse for all services of a command.

    Args:
        store: Keeps vectors and scores.
        paid: Keeps the vectors of services; None: the same store.
        pooling: Of plain encoders, which have none of their own.
    """

    store: Store
    console: Console
    paid: Store | None = None
    pooling: PoolingMode | Auto = "auto"
    purse: Purse = field(default_factory=Purse)

    def embedder(self, system: System) -> Embedder:
        opened = open_embedder(system, self.pooling, purse=self.purse)
        report = self.console.progress(f"texts encoded by {system.label}")
        if isinstance(opened, AdaptedEmbedder):  # its base's vectors are those of the base
            store = self._store(opened.is_paid)
            return opened.over(RecordedEmbedder(opened.base, store, progress=report))
        return RecordedEmbedder(opened, self._store(system.is_paid), progress=report)

    def _store(self, paid: bool) -> Store:
        return (self.paid or self.store) if paid else self.store

    def reranker(self, system: System) -> RecordedReranker:
        report = self.console.progress(f"pairs read by {system.label}")
        return RecordedReranker(open_reranker(system), self.store, progress=report)

    def tell(self) -> None:
        """Say what was paid for."""
        for line in self.purse.lines():
            self.console.say(f"  {line}")
