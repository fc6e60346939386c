import re

import pytest
from bs4 import BeautifulSoup

from embedtune.report import build_report
from embedtune.report.render import chance, cut, literal, score, shown, signed


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain 中文 é", "plain 中文 é"),
        ("a\u202eb\u200bc\x1b[0m\x00\ufeff", r"a\u202eb\u200bc\x1b[0m\x00\ufeff"),
        ("line\r\nline\n\tline\u3000全角", "line\nline\n\tline\u3000全角"),
        ("half \ud800", r"half \ud800"),
        ("line\u2028para\u2029", r"line\u2028para\u2029"),
    ],
)
def test_hidden_characters_are_shown_and_line_breaks_stay(text, seen):
    assert shown(text) == seen


def test_cut_counts_what_is_seen():
    assert cut("abcdef", 6) == "abcdef"
    assert cut("abcdefg", 6) == "abcde…"
    assert len(cut("\u202e" * 100, 50)) <= 50


def test_numbers_never_pretend():
    assert [score(None), score(float("nan")), score(0.0)] == ["–", "–", "0.000"]
    assert [signed(-0.0341), signed(-0.0001), signed(0.12)] == ["−0.034", "0.000", "+0.120"]
    assert [chance(0.0), chance(None), chance(0.05)] == ["< 0.001", "–", "0.050"]


@pytest.mark.parametrize("text", ["a'b\"c\\d\n", "中文 {x}", "a\u202e\x00\x9f\U000e0001\u2028"])
def test_a_python_literal_reads_back_as_the_text(text):
    assert eval(literal(text)) == text  # the literal of our own test strings
    assert literal(text).isprintable()


def test_hostile_text_stays_text(hostile):
    html = build_report(hostile).html
    page = BeautifulSoup(html, "html.parser")
    assert not page.find_all(["script", "img", "iframe", "object", "embed", "link", "base", "form"])
    assert not [
        name for tag in page.find_all(True) for name in tag.attrs if name.lower().startswith("on")
    ]
    assert all(link["href"].startswith("#") for link in page.find_all(href=True))
    assert not page.find_all(src=True)
    assert "<script>window.canary=1</script>" in page.get_text()
    assert "{{7*7}}" in page.get_text()
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b-\u200f\ufeff\x00\x07\x1b\ud800]", html)
    assert r"abc\u202egnp.exe\u200b" in page.get_text()
    html.encode("utf-8")  # no lone surrogate is left


def test_the_page_forbids_everything_from_outside(full):
    html = build_report(full).html
    page = BeautifulSoup(html, "html.parser")
    policy = page.find("meta", attrs={"http-equiv": "Content-Security-Policy"})["content"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert not page.find_all("script")
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    addresses = set(re.findall(r"https?://[^\"'\s<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_a_very_large_run_stays_under_two_megabytes(hostile):
    from dataclasses import replace

    from embedtune.records import Reject

    evil = "\u202e<&\"'\u200b" * 2000
    queries = {f"q{number}": number / 20_000 for number in range(20_000)}
    systems = tuple(
        replace(
            system,
            per_query={"ndcg@10": {q: (v * (3 + n)) % 1 for q, v in queries.items()}},
            rankings=dict.fromkeys(queries, (("c1", 1.0), ("c2", 0.5))),
        )
        for n, system in enumerate(hostile.systems)
    )
    facts = replace(
        hostile,
        systems=systems,
        qrels={q: {"c3": 1} for q in queries},
        chunks=tuple(replace(chunk, text=evil, title=evil) for chunk in hostile.chunks),
        rejects=[Reject(f"stage {n}", evil, evil, file=evil, excerpt=evil) for n in range(1000)],
        training=replace(
            hostile.training,
            history=[{"step": n, "loss": 1 / (n + 1), "dev": 0.5} for n in range(20_000)],
        ),
        notes=[evil] * 1000,
        settings=evil * 10,
        fingerprints={f"{n} {evil}": evil for n in range(1000)},
    )
    assert len(build_report(facts).html.encode()) < 2_000_000
