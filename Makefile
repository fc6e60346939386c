# Each target sets up .venv by itself when it is missing or stale; see scripts/bootstrap.py.
PYTHON ?= python3
RUN = $(PYTHON) scripts/bootstrap.py

.PHONY: demo test lint bench prove
demo:
	$(RUN) -m embedtune demo
test:
	$(RUN) -m pytest -q -n 2 --dist loadfile
lint:
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
bench:
	$(RUN) benchmarks/real_data.py
prove:
	$(RUN) benchmarks/kills.py --progress .prove/kills.jsonl --write docs/proofs.md
