"""Versions of a model: loaded aside, tested, changed, changed back; files may go meanwhile."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from embedtune.embed.local import LocalEmbedder
from embedtune.errors import ConfigError, IntegrityError
from embedtune.serving import openai_routes
from embedtune.serving.keys import Keys
from embedtune.serving.metrics import Metrics
from embedtune.serving.models import Catalogue, Source, check_model, parse_source
from embedtune.serving.settings import ServerSettings

ADMIN = "key-of-the-admin"
TEXTS = ["the robot stops", "机器人夜班"]


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def server(folder, serving):
    keys = Keys(admin=[ADMIN])
    headers = {"authorization": f"Bearer {ADMIN}"}
    with serving(sources=[Source("docs", str(folder))], keys=keys, headers=headers) as own:
        yield own


def vectors(server) -> np.ndarray:
    answer = server.embed(TEXTS, "docs")
    assert answer.status_code == 200, answer.text
    return np.array([item["embedding"] for item in answer.json()["data"]])


def change(server, what: str):
    return server.client.post(f"/admin/models/docs/{what}")


def other_weights(folder, scale: float = 0.5):
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    weights = load_file(file)
    for name in weights:
        if name.endswith("word_embeddings.weight"):
            weights[name] = weights[name].flip(0) * scale
    save_file(weights, folder / "new.safetensors", metadata={"format": "pt"})
    (folder / "new.safetensors").replace(file)


def test_a_new_version_is_served_after_reload_and_the_old_after_rollback(server, folder):
    old = vectors(server)
    first = server.client.get("/v1/models/docs").json()["revision"]
    other_weights(folder)
    assert np.array_equal(vectors(server), old)  # not before it is asked for
    answer = change(server, "reload")
    assert answer.status_code == 200, answer.text
    second = answer.json()["revision"]
    assert answer.json() == {"model": "docs", "revision": second, "previous": first}
    assert second != first
    new = vectors(server)
    assert np.abs(new - LocalEmbedder(str(folder)).embed(TEXTS, "document")).max() < 1e-5
    assert np.abs(new - old).max() > 1e-3
    assert change(server, "rollback").json()["revision"] == first
    assert np.array_equal(vectors(server), old)
    assert change(server, "rollback").json()["revision"] == second
    assert server.figure("embedtune_model_loads_total", model="docs", outcome="loaded") == 2


def test_v12_files_removed_or_overwritten_while_serving_change_nothing(server, folder):
    old = vectors(server)
    weights = folder / "model.safetensors"
    with weights.open("r+b") as file:  # in place: what is mapped from it would change
        file.seek(weights.stat().st_size // 2)
        file.write(b"\x7f" * 10_000)
    assert np.array_equal(vectors(server), old)
    weights.write_bytes(b"")
    assert np.array_equal(vectors(server), old)
    shutil.rmtree(folder)
    assert np.array_equal(vectors(server), old)


@pytest.mark.parametrize("fault", ["nan", "empty", "gone"])
def test_v12_a_version_that_fails_its_test_is_refused_and_the_current_one_stays(
    server, folder, fault
):
    old = vectors(server)
    if fault == "nan":
        other_weights(folder, float("nan"))
    elif fault == "empty":
        (folder / "model.safetensors").write_bytes(b"")
    else:
        shutil.rmtree(folder)
    answer = change(server, "reload")
    assert answer.status_code == 409
    assert "the current one stays" in answer.json()["error"]["message"]
    assert np.array_equal(vectors(server), old)
    assert change(server, "rollback").status_code == 409
    assert server.figure("embedtune_model_loads_total", model="docs", outcome="refused") == 1


def test_a_version_with_vectors_of_another_size_is_refused(server, folder):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense

    model = SentenceTransformer(str(folder), device="cpu")
    model.append(Dense(32, 8))
    model.save(str(folder), create_model_card=False)
    answer = change(server, "reload")
    assert answer.status_code == 409
    assert "8 numbers" in answer.json()["error"]["message"]


def test_requests_meanwhile_are_answered_through_many_changes(serving, make_stub, monkeypatch):
    """Versions come and go while texts are counted, which is when a request has no place yet."""
    counting = openai_routes.count_tokens
    slow = lambda *given: time.sleep(0.05) or counting(*given)  # noqa: E731
    monkeypatch.setattr(openai_routes, "count_tokens", slow)
    keys = Keys(admin=[ADMIN])
    with serving(
        sources=[Source("docs", "hashing")], keys=keys, headers={"authorization": f"Bearer {ADMIN}"}
    ) as server:
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(server.embed, "word " * 1000 + str(n), "docs") for n in range(60)]
            changes = 0
            while not all(own.done() for own in asked):
                assert change(server, "reload").status_code == 200
                changes += 1
        assert changes > 10
        assert {own.result().status_code for own in asked} == {200}


def test_unknown_models_cannot_be_reloaded(server):
    for name in ("other", "docs:query"):
        assert server.client.post(f"/admin/models/{name}/reload").status_code == 404


def test_a_name_is_given_once():
    catalogue = Catalogue(ServerSettings(), Metrics())
    catalogue.add(Source("a", "hashing"))
    with pytest.raises(ConfigError, match="named twice"):
        catalogue.add(Source("a", "hashing:64"))
    catalogue.close(finish=True)


@pytest.mark.parametrize("text", ["=x", "a=", " a=b", "x:query=b", "a\n=b"])
def test_names_that_cannot_be_are_refused(text):
    with pytest.raises(ConfigError):
        parse_source(text)


def test_a_folder_is_called_by_its_name(tmp_path):
    assert parse_source(str(tmp_path)).name == tmp_path.name


def test_trained_dimensions_are_allowed_and_others_are_not(folder, serving):
    (folder / "embedtune.json").write_text('{"matryoshka_dims": [32, 16, 8]}', "utf-8")
    with serving(sources=[Source("docs", str(folder))]) as server:
        assert server.client.get("/v1/models/docs").json()["dimensions"] == [32, 16, 8]
        full = np.array(server.embed("dock", "docs").json()["data"][0]["embedding"])
        cut = server.embed("dock", "docs", dimensions=8).json()["data"][0]["embedding"]
        assert np.allclose(cut, full[:8] / np.linalg.norm(full[:8]), atol=1e-6)
        refused = server.embed("dock", "docs", dimensions=9).json()["error"]["message"]
        assert "32, 16, 8" in refused


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda rows: rows * 0, "zero"),
        (lambda rows: rows * float("inf"), "infinite"),
        (lambda rows: rows[:, :-1], "shape"),
        (lambda rows: rows * 0 + 1, "the same vector"),
        (lambda rows: rows + 10 * (len(rows) > 1), "moves"),
    ],
)
def test_the_self_test_finds(stub, spoil, told):
    right = stub.embed
    check_model(stub)
    stub.embed = lambda texts, role: spoil(right(texts, role))
    with pytest.raises(IntegrityError, match=told):
        check_model(stub)
