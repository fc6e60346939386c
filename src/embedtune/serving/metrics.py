"""What Prometheus reads: requests, times, queues, batches and loads."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

from embedtune.serving.batching import Load

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536)


class Metrics:
    """The figures of one server. Safe to use from every thread."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        ProcessCollector(registry=own)
        self.requests = Counter(
            "embedtune_requests", "Answers by route and status.", ("route", "status"), registry=own
        )
        self.seconds = Histogram(
            "embedtune_request_seconds", "Time to answer.", ("route",), buckets=SECONDS,
            registry=own,
        )  # fmt: skip
        self.texts = Counter(
            "embedtune_texts", "Texts embedded, by model and role.", ("model", "role"), registry=own
        )
        self.tokens = Counter("embedtune_tokens", "Tokens read.", ("model",), registry=own)
        self.batch_tokens = Histogram(
            "embedtune_batch_tokens", "Tokens a batch.", ("model",), buckets=TOKENS, registry=own
        )
        self.batch_seconds = Histogram(
            "embedtune_batch_seconds", "Time a batch.", ("model",), buckets=SECONDS, registry=own
        )
        self.loads = Counter(
            "embedtune_model_loads", "Models loaded, by outcome.", ("model", "outcome"),
            registry=own,
        )  # fmt: skip
        self.left = Counter(
            "embedtune_clients_left", "Clients that left before their answer.", registry=own
        )

    def watch(self, loads: Callable[[], dict[str, Load]]) -> None:
        """Show the queues as they are when the figures are read; model -> load."""
        self.registry.register(_Queues(loads))

    def shown(self) -> bytes:
        return generate_latest(self.registry)


class _Queues:
    """A collector: prometheus asks it each time."""

    def __init__(self, loads: Callable[[], dict[str, Load]]) -> None:
        self._loads = loads

    def collect(self) -> Iterator[Metric]:
        texts = GaugeMetricFamily(
            "embedtune_queue_texts", "Texts accepted and not yet embedded.", labels=("model",)
        )
        tokens = GaugeMetricFamily(
            "embedtune_queue_tokens", "Tokens accepted and not yet embedded.", labels=("model",)
        )
        for model, load in self._loads().items():
            texts.add_metric((model,), load.texts)
            tokens.add_metric((model,), load.tokens)
        yield texts
        yield tokens
