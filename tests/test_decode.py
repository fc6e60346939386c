import pytest

from embedtune.decode import Undecodable, decode

SIMPLIFIED = (
    "证券发行注册制的具体范围、实施步骤，由国务院规定。公司首次公开发行新股，应当符合下列条件。\n"
)
TRADITIONAL = (
    "證券發行註冊制的具體範圍、實施步驟，由國務院規定。公司首次公開發行新股，應當符合下列條件。\n"
)
JAPANESE = (
    "有価証券の発行に関する手続きは、法律の定めるところによります。会社は、条件を満たします。\n"
)
KOREAN = "증권의 발행 등록 제도에 관한 구체적인 범위와 실시 절차는 국무원이 정한다.\n"
FRENCH = (
    "L’émission est régie par la loi : l’été, où l’on crée des sociétés à Genève — « prêtes ».\n"
)
GERMAN = "Für die Übernahme gelten folgende Maßnahmen: größere Änderungen sind zu bestätigen.\n"
ENGLISH = "The company’s “risk factors” – see page 5 – are listed here. It cost €5.\n"
RUSSIAN = "Порядок выпуска ценных бумаг устанавливается законом и правилами.\n"
POLISH = "Książka została wydana, więc należy złożyć wniosek o rejestrację spółki.\n"
CZECH = "Společnost musí splňovat následující podmínky: příliš žluťoučký kůň úpěl ďábelské ódy.\n"
TURKISH = "Şirket aşağıdaki koşulları karşılamalıdır: iğne, ışık, çağ, öğrenci ve müşteri.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        *[(SIMPLIFIED, name) for name in ("utf-8", "gbk", "gb18030", "utf-16-le", "utf-16-be")],
        *[(TRADITIONAL, name) for name in ("big5", "gbk", "utf-16-le")],
        *[(JAPANESE, name) for name in ("cp932", "euc_jp", "iso2022_jp", "utf-16-le")],
        *[(KOREAN, name) for name in ("cp949", "utf-16-be")],
        *[(ENGLISH, name) for name in ("cp1252", "utf-16-le", "utf-16-be")],
        (FRENCH, "cp1252"),
        (GERMAN, "cp1252"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8_r"),
    ],
)
@pytest.mark.parametrize("times", [1, 40])
def test_text_in_common_encodings_is_read_right(text: str, encoding: str, times: int) -> None:
    assert decode((text * times).encode(encoding)).text == text * times


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_text(encoding: str) -> None:
    assert decode(SIMPLIFIED.encode(encoding)).text == SIMPLIFIED


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (POLISH, "cp1250"),
        (POLISH, "iso8859_2"),
        (CZECH, "cp1250"),
        (TURKISH, "cp1254"),
        (FRENCH, "mac_roman"),
        (GERMAN, "cp850"),
        (RUSSIAN, "cp866"),
    ],
)
def test_what_cannot_be_told_is_refused_with_guess_and_confidence(text: str, encoding: str) -> None:
    with pytest.raises(Undecodable, match=r"best guess \w[\w-]*, confidence \d+%"):
        decode(text.encode(encoding, "replace") * 20)


def test_random_bytes_are_refused() -> None:
    with pytest.raises(Undecodable):
        decode(bytes((i * 167 + i // 7 * 91) % 256 for i in range(5000)))


def test_a_few_broken_bytes_are_replaced_and_counted_with_their_line() -> None:
    lines = [SIMPLIFIED.encode()] * 900
    lines[811] = b"\xff" + lines[811][:30] + b"\xfe\xff" + lines[811][30:]
    found = decode(b"".join(lines))
    assert (found.encoding, found.replaced, found.first_bad_line) == ("utf-8", 3, 812)
    with pytest.raises(Undecodable, match="3 broken bytes in UTF-8, the first on line 812"):
        decode(b"".join(lines), replace_broken=False)


def test_a_few_broken_bytes_in_ascii_text() -> None:
    found = decode(b"plain words in a row\n" * 500 + b"\xff\xfe\n" + b"more words\n" * 500)
    assert (found.replaced, found.first_bad_line) == (2, 501)
