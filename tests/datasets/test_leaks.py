"""What two texts share: copies of five kinds are found, forms with other facts are not."""

import random
import re

import pytest

from embedtune.datasets import leaks
from embedtune.datasets.leaks import Shared, shared_texts, shared_within

ENGLISH = (
    "The old ferry crosses the fjord twice a day, except when ice closes the northern quay.",
    "Tickets are sold on board by the mate, who accepts coins but no banknotes above fifty.",
    "Bicycles travel free of charge, horses need a certificate from the harbour office.",
    "In storms the captain may turn round at any buoy and refunds half of the fare.",
    "Parcels left on the pier after sunset are kept in the green shed until morning.",
    "School groups of more than ten children must be announced a week ahead by letter.",
)
CHINESE = (
    "老渡轮每天两次横渡峡湾，北码头封冻时除外。",
    "船票由大副在船上出售，收硬币，不收五十以上的纸币。",
    "自行车免费携带，马匹须持港务所的证明。",
    "遇到风暴，船长可以在任何一个浮标处掉头，并退还一半票款。",
    "日落以后留在栈桥上的包裹，放进绿色棚屋保管到天亮。",
    "十名以上儿童的学校团体，必须提前一周来信预约。",
)
OTHER = {
    "en": "Gulls nest on the chimney of the former cannery. Its windows were bricked up long ago, "
    "and nobody remembers who owned the machines. Visitors hear only the wind there.",
    "zh": "海鸥在旧罐头厂的烟囱上筑巢。窗户早已砌死，没有人记得机器属于谁。"
    "来访的人在那里只听得见风声。",
}
SENTENCES = {"en": ENGLISH, "zh": CHINESE}


def joined(sentences, language):
    return ("" if language == "zh" else " ").join(sentences)


def edited(text, language):
    """Every tenth word (ideograph) is another."""
    pieces = list(text) if language == "zh" else text.split()
    for place in range(4, len(pieces), 10):
        pieces[place] = "某" if language == "zh" else "something"
    return "".join(pieces) if language == "zh" else " ".join(pieces)


def twin(kind, language):
    sentences = SENTENCES[language]
    whole = joined(sentences, language)
    middle = len(whole) // 3
    return {
        "exact": whole.upper() if language == "en" else whole.replace("，", ", "),
        "edited": edited(whole, language),
        "contained": whole[middle : 2 * middle],
        "overlapping": whole[len(whole) // 2 :] + OTHER[language],
        "re-ordered": joined([sentences[place] for place in (3, 0, 5, 1, 4, 2)], language),
    }[kind]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", ["exact", "edited", "contained", "overlapping", "re-ordered"])
def test_each_kind_of_copy_is_found_and_named(kind, language):
    texts = [OTHER[language], joined(SENTENCES[language], language), twin(kind, language)]
    pairs = {(pair.one, pair.other): pair.kind for pair in shared_texts(texts)}
    if kind == "overlapping":  # its second half is the other text, whole
        assert pairs.pop((0, 2)) == "contained"
    assert pairs == {(1, 2): kind}


FORMS = {
    "en": (
        "Lease {n}. {name} rents flat {flat} in {town} from {date} for {sum} crowns a month. The "
        "rent is due on the third working day. Keys are handed over against a signed receipt. "
        "Notice is given in writing, three months ahead. The deposit of {deposit} crowns is "
        "returned when the flat is empty, clean and painted white.",
        "Ada Corin|Bo Helm|Cyra Lund|Dov Marsh|Edda Noor|Finn Oakley|Gwen Pryor|Hal Quist",
        "Arnby|Bruckau|Cressing|Dalum|Elvas|Fornby",
    ),
    "zh": (
        "租约第{n}号。{name}承租{town}{flat}室，自{date}起，每月租金{sum}元。租金在每月第三个工作日支付。"
        "钥匙凭签字的收据交付。退租须提前三个月书面通知。押金{deposit}元，在房屋腾空、打扫干净并刷白以后退还。",
        "沈一鸣|顾清和|陆远山|程小舟|叶知春|方若水|白露生|韩江雪",
        "东河镇|西岭村|南浦|北关|中原路|上林",
    ),
}


def filled(language, number):
    form, names, towns = FORMS[language]
    rng = random.Random(f"{language}{number}")
    return form.format(
        n=1000 + 7 * number, name=rng.choice(names.split("|")), flat=rng.randint(1, 990),
        town=rng.choice(towns.split("|")), sum=rng.randint(300, 9000),
        deposit=rng.randint(1000, 9900),
        date=f"{rng.randint(2001, 2029)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}",
    )  # fmt: skip


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("count", [2, 3, 5, 40, 150])
def test_a_form_with_other_facts_is_no_copy_however_often_it_recurs(count, language):
    assert shared_texts([filled(language, number) for number in range(count)]) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_copy_is_found_among_a_hundred_of_the_same_form(language):
    texts = [filled(language, number) for number in range(100)]
    sentences = re.findall(r"[^.。]+[.。]\s*", texts[30])
    texts += [
        texts[10].replace("returned", "given back").replace("退还", "归还").replace("签字", "签名"),
        "".join(reversed(sentences)),
        texts[50],
    ]
    pairs = {(pair.one, pair.other): pair.kind for pair in shared_texts(texts)}
    assert pairs == {(10, 100): "edited", (30, 101): "re-ordered", (50, 102): "exact"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_notice_that_recurs_at_the_end_of_other_texts_is_no_overlap(language):
    notice = {
        "en": " This information is given without guarantee and replaces no advice in person.",
        "zh": "以上内容仅供参考，不作任何保证，也不能代替当面咨询。",
    }[language]
    texts = [sentence + notice for sentence in SENTENCES[language]]
    assert shared_texts(texts) == []


def test_a_changed_number_makes_another_sentence_a_changed_article_does_not():
    def kinds(one, other):
        return [pair.kind for pair in shared_texts([one, other])]

    assert (
        kinds("What is the rent of the flat number 17?", "What is the rent of flat number 18?")
        == []
    )
    assert kinds("Where is the key to my cellar kept?", "Where is the key to the cellar kept?") == [
        "edited"
    ]
    assert kinds("How do I paint the door?", "How do I lock the door?") == []
    assert kinds("请问钥匙存放在哪一间办公室？", "钥匙存放在哪一间办公室") == ["edited"]
    assert kinds("第十七号房的租金是多少？", "第十八号房的租金是多少？") == []
    assert kinds("When is the deposit retruned?", "When is the deposit returned?") == ["edited"]


def test_texts_without_letters_share_nothing_and_odd_characters_do_no_harm():
    assert shared_texts([]) == shared_texts(["", " ", "!!!", "…", ""]) == []
    odd = "İstanbul’un \ud83d vapuru 𠮷野家 é ß, " + ENGLISH[0]
    assert [pair.kind for pair in shared_texts([odd, odd + "!"])] == ["exact"]


def test_many_copies_are_a_star_and_not_all_pairs():
    texts = [joined(SENTENCES["en"], "en")] * 200
    assert [(pair.one, pair.other) for pair in shared_texts(texts)] == [
        (0, n) for n in range(1, 200)
    ]


def test_the_order_of_the_texts_does_not_matter():
    texts = [filled("en", number) for number in range(30)]
    texts += [twin("edited", "en"), joined(SENTENCES["en"], "en"), twin("contained", "en")]
    found = {
        (frozenset((texts[pair.one], texts[pair.other])), pair.kind) for pair in shared_texts(texts)
    }
    order = list(range(len(texts)))
    random.Random(2).shuffle(order)
    mixed = [texts[place] for place in order]
    again = {
        (frozenset((mixed[pair.one], mixed[pair.other])), pair.kind) for pair in shared_texts(mixed)
    }
    assert found == again
    assert {kind for _, kind in found} == {"edited", "contained"}


def test_a_very_long_text_and_one_word_of_fifty_thousand_letters_do_no_harm():
    long = " ".join(f"{sentence} {number}" for number in range(300) for sentence in ENGLISH)
    word = "x" * 50_000
    pairs = {
        (pair.one, pair.other): pair.kind
        for pair in shared_texts([long, long[5000:9000], word, f"{word} and more"])
    }
    assert set(pairs) == {(0, 1)}


def test_what_is_too_much_is_compared_by_rank_and_the_rest_for_equality(monkeypatch):
    whole, mixed = joined(SENTENCES["en"], "en"), twin("re-ordered", "en")
    texts = [mixed, OTHER["en"], whole, OTHER["en"].upper(), mixed]
    pairs, compared = shared_within(texts, [0] * 5)
    assert compared == 5
    assert {(pair.one, pair.other, pair.kind) for pair in pairs} == {
        (0, 2, "re-ordered"), (0, 4, "exact"), (1, 3, "exact"), (2, 4, "re-ordered")}  # fmt: skip
    # room for two of the long ones: those of rank 0
    monkeypatch.setattr(leaks, "COMPARED", 2 * len(whole) + 10)
    pairs, compared = shared_within(texts, [1, 1, 0, 1, 0])
    assert compared == 2
    assert pairs == [
        Shared(0, 4, "exact", 1.0),
        Shared(1, 3, "exact", 1.0),
        next(pair for pair in pairs if pair.kind == "re-ordered"),
    ]
    assert (pairs[2].one, pairs[2].other) == (2, 4)
