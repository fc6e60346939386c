import datetime
import json

import pytest
import yaml

from embedtune.errors import ConfigError
from embedtune.llm import ChatRequest
from embedtune.llm.budget import Budget, BudgetSettings, Cost
from embedtune.llm.prices import Price, _bundled, cost_of, price_of
from embedtune.llm.recorded import LLMSettings, open_chat
from embedtune.store import StoredAnswer

OPENAI = "https://api.openai.com/v1"


def settings(**given):
    return LLMSettings(**given)


# ---- the table that comes along


def test_every_bundled_price_says_when_and_where_it_was_read():
    rows = _bundled()
    assert len(rows) > 20
    for row in rows:
        assert datetime.date.fromisoformat(row.known) <= datetime.date.today(), row.model
        assert row.source.startswith("https://"), row.model
        if "embedding" in row.model:
            assert row.output == 0 < row.input, row.model
        else:
            assert 0 < row.input <= row.output, row.model
    assert len({(row.model, row.host) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("model", "input_price"),
    [
        ("gpt-4.1-mini", 0.40),
        ("gpt-4.1-mini-2025-04-14", 0.40),  # a snapshot
        ("GPT-4.1-Mini", 0.40),
        ("gpt-4.1", 2.00),
        ("gpt-4o-2024-05-13", 5.00),  # a snapshot with a price of its own
        ("gpt-4o-2024-08-06", 2.50),
        ("gpt-5-mini", 0.25),
    ],
)
def test_a_model_is_found_by_its_name_and_by_that_of_its_snapshot(model, input_price):
    found = price_of(settings(model=model, base_url=OPENAI))
    assert found is not None
    assert found.input == input_price
    assert "openai.com" in found.origin


def test_a_name_at_another_host_is_another_model():
    assert price_of(settings(model="gpt-4.1-mini", base_url="http://localhost:8000/v1")) is None
    assert price_of(settings(model="deepseek-flash", base_url=OPENAI)) is None
    found = price_of(settings(model="deepseek-flash", base_url="https://api.deepseek.com"))
    assert found is not None
    assert "peak" in found.origin


def test_model_and_address_come_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("LLM_MODEL", "gpt-4.1-nano")
    assert price_of(settings()) == price_of(settings(model="gpt-4.1-nano", base_url=OPENAI))
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    assert price_of(settings()) is None
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.setenv("GEMINI_API_KEY", "g")
    monkeypatch.setenv("LLM_MODEL", "models/gemini-2.5-flash")
    found = price_of(settings())
    assert found is not None
    assert found.output == 2.50


def test_what_runs_here_costs_nothing():
    for provider in ("local", "scripted"):
        assert cost_of(settings(provider=provider, model="anything"), 10**6, 10**6) == 0


# ---- the user's own


def test_a_price_in_the_settings_goes_before_every_table():
    given = settings(model="gpt-4.1", base_url=OPENAI, price={"input": 9, "output": 10})
    assert price_of(given) == Price(9, 10, 0.5, "")
    assert cost_of(given, 1_000_000, 500_000) == pytest.approx(14)
    assert cost_of(given.model_copy(update={"mode": "batch"}), 1_000_000, 500_000) == 7


def test_an_unknown_price_is_unknown_and_not_nothing():
    assert cost_of(settings(model="brand-new", base_url=OPENAI), 1000, 1000) is None


ROWS = [
    {"model": "brand-new", "input": 1.5, "output": 3, "host": "*.example.com"},
    {"model": "gpt-4.1*", "input": 7, "output": 8, "batch": 1, "note": "our contract"},
]


@pytest.mark.parametrize("kind", ["csv", "json", "yaml", "by model"])
def test_a_table_of_ones_own_goes_before_the_bundled_one(tmp_path, kind):
    path = tmp_path / f"prices.{'json' if kind == 'by model' else kind}"
    if kind == "csv":
        path.write_text("model,input,output,host,batch,note\nbrand-new,1.5,3,*.example.com,,\n"
                        "gpt-4.1*,7,8,,1,our contract\n")  # fmt: skip
    elif kind == "by model":
        path.write_text(json.dumps({row.pop("model"): row for row in map(dict, ROWS)}))
    elif kind == "json":
        path.write_text(json.dumps(ROWS))
    else:
        path.write_text(yaml.safe_dump(ROWS))
    own = price_of(settings(model="gpt-4.1-mini", base_url=OPENAI, prices=path))
    assert own is not None
    assert (own.input, own.output, own.batch) == (7, 8, 1)
    assert "our contract" in own.origin
    there = settings(model="brand-new", base_url="https://llm.example.com/v1", prices=path)
    assert cost_of(there, 2_000_000, 1_000_000) == pytest.approx(6)
    elsewhere = settings(model="brand-new", base_url=OPENAI, prices=path)
    assert price_of(elsewhere) is None
    bundled = price_of(settings(model="gpt-5-mini", base_url=OPENAI, prices=path))
    assert bundled is not None
    assert bundled.input == 0.25


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("p.csv", "model,input,output\nm,-1,2\nn,x,2\n", r"line 2: input.*-1.*line 3: input.*x"),
        ("p.csv", "model,input,output\nm,1\n", r"line 2: 2 cells where the header has 3"),
        ("p.json", '[{"model": "m", "input": 1}]', r"row 1: output"),
        ("p.json", '[{"model": "m", "inputs": 1, "output": 1}]', r"row 1: input.*inputs"),
        ("p.json", '{"m": 3}', r"expected a list of rows"),
        ("p.json", '{"m": ', r"p\.json: "),
        ("p.yaml", "m: !!python/object/apply:os.system [x]", r"p\.yaml: "),
        ("p.yaml", "- a\n- b", r"expected a list of rows"),
        ("none.csv", None, r"none\.csv cannot be read"),
    ],
)  # fmt: skip
def test_faults_of_a_table_are_told_together_with_their_place(tmp_path, name, text, told):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"llm.prices.*{told}"):
        price_of(settings(model="m", prices=path))
    # before anything is asked
    with pytest.raises(ConfigError, match=r"llm\.prices"):
        open_chat(settings(model="m", base_url="http://localhost:1", prices=path))


def test_faults_of_price_mode_and_address_are_told_together(tmp_path):
    with pytest.raises(ConfigError) as caught:
        open_chat(settings(provider="nobody", mode="batch", prices=tmp_path / "none.csv"))
    assert len(caught.value.faults) == 3


# ---- the budget


def test_no_request_is_estimated_below_its_bytes_and_its_answer():
    budget = Budget(BudgetSettings(), Price(1, 2))
    most = budget.most(ChatRequest("系统", "问题?", {"type": "object"}, max_tokens=100))
    # 6 + 7 bytes of text, 18 of the schema, 64 for the template
    assert most == Cost(1, 95 + 100, pytest.approx((95 + 200) / 1e6))
    again = budget.most(ChatRequest("系统", "问题?", max_tokens=100, attempt=1))
    assert again.tokens > 100 + 13 + 64 + 50  # the reminder counts


def test_what_is_set_aside_counts_until_it_is_given_back():
    budget = Budget(BudgetSettings(tokens=100, requests=3), None)
    one = Cost(1, 40, 0.0)
    assert [budget.reserve(one) for _ in range(3)] == ["", "", "tokens"]
    budget.release(one)
    assert budget.reserve(one) == ""
    budget.release(one)
    budget.spent.add(StoredAnswer("m", "", "x", "stop", 30, 31), None)
    assert budget.reserve(one) == "tokens"  # 61 spent, 40 set aside
    budget.release(one)
    assert budget.reserve(Cost(1, 39, 0.0)) == ""


def test_answers_of_a_batch_count_at_their_share():
    budget = Budget(BudgetSettings(), Price(10, 20, 0.25))
    for batch in ("", "batch_1"):
        answer = StoredAnswer("m", "", "x", "stop", 1000, 500, batch=batch)
        budget.spent.add(answer, budget.price)
    assert budget.spent.usd == pytest.approx(0.02 + 0.02 / 4)
