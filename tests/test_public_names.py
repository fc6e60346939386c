import importlib.metadata
from importlib import import_module
from pathlib import Path

import pytest

import embedtune


@pytest.mark.parametrize("name", embedtune.__all__)
def test_every_public_name_is_there(name):
    assert getattr(embedtune, name) is not None
    assert name in dir(embedtune)


def test_no_public_name_is_also_a_module_that_would_hide_it():
    folder = Path(embedtune.__file__).parent
    modules = {path.stem for path in folder.iterdir()}
    assert modules.isdisjoint(embedtune.__all__)


def test_the_promised_names_are_public():
    promised = {
        "read_documents", "chunk_documents", "generate_queries", "extract_queries", "read_beir",
        "write_beir", "split_queries", "train", "merge_into", "Evaluator", "compare",
        "load_embedder", "load_chat", "run_pipeline", "load_config", "build_report",
    }  # fmt: skip
    assert promised <= set(embedtune.__all__)


@pytest.mark.parametrize("package", ["documents", "queries", "report"])
def test_packages_export_what_they_say(package):
    module = import_module(f"embedtune.{package}")
    for name in module.__all__:
        assert getattr(module, name).__module__.startswith(f"embedtune.{package}.")


def test_an_unknown_name_is_an_ordinary_error():
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        _ = embedtune.tarin


def test_the_version_is_the_distributions():
    assert embedtune.__version__ == importlib.metadata.version("embedtune")


def test_type_checkers_are_told():
    assert (Path(embedtune.__file__).parent / "py.typed").is_file()
