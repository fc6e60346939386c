# Each target sets up .venv by itself when it is missing or stale; see scripts/bootstrap.py.
PYTHON ?= python3
RUN = $(PYTHON) scripts/bootstrap.py

DATA ?= ../shared/data

.PHONY: demo test lint bench bench-train bench-quality prove
demo:
	$(RUN) -m embedtune demo
test:
	$(RUN) -m pytest -q -n 2 --dist loadfile
lint:
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
bench:
	$(RUN) benchmarks/real_data.py
bench-train:
	$(RUN) benchmarks/train_speed.py --json
bench-quality:
	$(RUN) benchmarks/quality.py $(addprefix $(DATA)/,medquad nvidia_10k onet_jobs securities_law) --seeds 3 --json
prove:
	PROVE=1 $(RUN) -m pytest -q tests/report/test_browser.py tests/serving
	$(RUN) benchmarks/verdict.py --write docs/proofs.md
	$(RUN) benchmarks/kills.py --progress .prove/kills.jsonl --write docs/proofs.md
	$(RUN) benchmarks/training_kills.py --progress .prove/training_kills.jsonl --write docs/proofs.md
