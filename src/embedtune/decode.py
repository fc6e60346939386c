"""Bytes to text: the encoding is found out, or the file is refused; text is never garbled.

UTF-8 proves itself. Other encodings decode almost any bytes to something, so what comes out is
judged: a wrong guess gives rare characters, and in every language a few hundred characters make
up most of a text.
"""

import re
from typing import NamedTuple

SAMPLE = 100_000  # bytes looked at to choose an encoding; the whole file must decode with it


class Decoded(NamedTuple):
    text: str
    encoding: str
    replaced: int = 0  # broken bytes that became U+FFFD
    first_bad_line: int | None = None


class Undecodable(ValueError):
    """No encoding fits; the message names the best guess and its confidence."""


MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)

_SIMPLIFIED = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多"
    "经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性"
    "知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次"
    "度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建"
    "务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路"
    "记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运证券股险款费额单客户合同约定期应当可以进行"
)
_TRADITIONAL = frozenset(
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡裏用道行所然家種事成方多"
    "經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實日軍者意無力它與長把機十民第公此已工使情明性"
    "知全三又關點正業外將兩高間由問很最重並物手應戰向頭文體政美相見被利什二等產或新己制身果加西斯月話合回特代內信表化老給世位次"
    "度門任常先海通教兒原東聲提立及比員解水名真論處走義各入幾口認條平系氣題活爾更別打女變四神總何電數安少報才結反受目太量再感建"
    "務做接必場件計管期市直德資命山金指克許統區保至隊形社便空決治展馬科司五基眼書非則聽白卻界達光放強即像難且權思王象完設式色路"
    "記南品住告類求據程北邊死張該交規萬取拉格望覺術領共確傳師觀清今切院讓識候帶導爭運證券股險款費額單客戶約台灣"
)
_JAPANESE = frozenset(
    [chr(code) for code in range(0x3041, 0x3097)]
    + [chr(code) for code in range(0x30A1, 0x30FD)]
    + list(
        "日一国会人年大十二本中長出三時行見月分後前生五間上東四今金九入学高円子外八六下来気小七山話"
        "女北午百書先名川千水半男西電校語土木聞食車何南万毎白天母火右読友左休父雨法定的者事業理用方合場社目自地部務"
    )
)
_KOREAN = frozenset(
    "이다는의에을가고를은로지하한도사기서나어자대리시아인일보수해그부전상정스제장주라으과니만구여원조들했소선되세것있유경신공와비"
    "국관위치생거성트동계방중문화물오우적모면무용연학실개발분말없드르미양때까안요년바게진및영건했습합니다금산마단러할업내역회"
)
_RUSSIAN = frozenset("оеаинтсрвлкм")

# encoding -> letters that are common in its texts, least share of them, scripts counted
_WIDE = re.compile(
    r"[\u3041-\u30fc\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af]"
)
_CYRILLIC = re.compile(r"[\u0400-\u04ff]")
_MIXED = re.compile(r"[A-Za-z][\u0400-\u04ff]|[\u0400-\u04ff][A-Za-z]")
_CANDIDATES = (
    ("gb18030", _SIMPLIFIED | _TRADITIONAL, 0.25, _WIDE),
    ("big5hkscs", _TRADITIONAL, 0.25, _WIDE),
    ("cp932", _JAPANESE, 0.4, _WIDE),
    ("euc_jp", _JAPANESE, 0.4, _WIDE),
    ("cp949", _KOREAN, 0.35, _WIDE),
    ("cp1251", _RUSSIAN, 0.5, _CYRILLIC),
    ("koi8_r", _RUSSIAN, 0.5, _CYRILLIC),
    ("utf-16-le", _SIMPLIFIED | _TRADITIONAL | _JAPANESE | _KOREAN, 0.25, _WIDE),
    ("utf-16-be", _SIMPLIFIED | _TRADITIONAL | _JAPANESE | _KOREAN, 0.25, _WIDE),
)
LEAST_LEAD = 1.5  # times the share of the next best encoding
LEAST_LETTERS = 4  # below, nothing can be told from frequencies


def decode(data: bytes, *, replace_broken: bool = True) -> Decoded:
    """Text of ``data`` and the encoding it was in.

    Byte-order mark, UTF-16 without one, UTF-8, UTF-8 with a few broken bytes (replaced and counted
    when ``replace_broken``), ISO-2022-JP, then GB18030, Big5, Shift-JIS, EUC, Korean, Russian and
    Windows-1252 where the text that comes out is plausible.

    Raises:
        Undecodable: No guess is good enough; garbled text is never passed on.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            try:
                return Decoded(data.decode(encoding), encoding)
            except UnicodeDecodeError as error:
                if encoding == "utf-8-sig":
                    break  # as UTF-8 with broken bytes, below
                raise Undecodable(
                    f"marked as {encoding}, but broken at byte {error.start}"
                ) from error
    if b"\x00" in data and (found := _utf16_by_zeros(data)):
        return found
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        first_bad = data.count(b"\n", 0, error.start) + 1
    else:
        if b"\x1b$" in data and (found := _strict(data, "iso2022_jp")):
            return found
        return Decoded(text, "utf-8")
    broken, wide = _damage(data)
    # a file in another encoding breaks nearly every character that is not ASCII, a damaged one few
    if wide > 3 * broken and broken <= max(3, wide // 50):
        return _repaired(data, broken, first_bad, replace_broken)
    guess, confidence, sure = _by_letters(data)
    if sure and (found := _strict(data, guess)):
        return found
    found = _strict(data, "cp1252")
    if found and _western(found.text):
        return found
    if not wide and broken <= max(3, len(data) // 5000) and broken * 200 < len(data) and not sure:
        return _repaired(data, broken, first_bad, replace_broken)  # ASCII with a few broken bytes
    raise Undecodable(
        f"the text encoding cannot be told (best guess {guess}, confidence {confidence:.0%}); "
        "save the file as UTF-8"
    )


def _strict(data: bytes, encoding: str) -> Decoded | None:
    try:
        return Decoded(data.decode(encoding), encoding)
    except (UnicodeDecodeError, LookupError):
        return None


def _damage(data: bytes) -> tuple[int, int]:
    """Broken stretches, and good characters beyond ASCII, when read as UTF-8."""
    text = data.decode("utf-8", "replace")
    already = data.count("\ufffd".encode())
    broken = text.count("\ufffd") - already
    wide = len(text) - len(text.encode("ascii", "ignore")) - broken - already
    return broken, wide


def _repaired(data: bytes, broken: int, first_bad: int, allowed: bool) -> Decoded:
    if not allowed:
        raise Undecodable(
            f"{broken} broken bytes in UTF-8, the first on line {first_bad}; mend the file, or "
            "allow them to be replaced"
        )
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    return Decoded(text, "utf-8", broken, first_bad)


def _utf16_by_zeros(data: bytes) -> Decoded | None:
    """UTF-16 shows itself by a zero in every second byte of ASCII letters, line ends and blanks."""
    if len(data) % 2:
        return None
    sample = data[:SAMPLE]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    for encoding, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros > 4 * others:
            found = _strict(data, encoding)
            if found and "\x00" not in found.text and _mostly_known(found.text[:SAMPLE]):
                return found
    return None


def _mostly_known(text: str) -> bool:
    """No private or unassigned characters, as wrong byte orders give them."""
    strange = sum(not (character.isprintable() or character.isspace()) for character in text)
    return strange * 50 <= len(text)


def _by_letters(data: bytes) -> tuple[str, float, bool]:
    """(best encoding, confidence 0 to 1, whether that is good enough) by common letters."""
    sample = data[:SAMPLE]
    scores: list[tuple[float, str, bool]] = []
    for encoding, common, least, script in _CANDIDATES:
        wide = encoding.startswith("utf-16")
        if wide and len(data) % 2:
            continue
        try:
            # a character cut at the end of the sample is no fault of the encoding
            text = sample.decode(encoding, "strict" if len(sample) == len(data) else "ignore")
        except UnicodeDecodeError:
            continue
        letters = script.findall(text)
        if len(letters) < LEAST_LETTERS or (wide and not _mostly_known(text)):
            continue
        if script is _CYRILLIC and len(_MIXED.findall(text)) * 20 > len(letters):
            continue  # accents of another language inside Latin words
        counted = len(text) if wide else len(letters)
        share = sum(letter in common for letter in letters) / counted
        scores.append((share, encoding, share >= least))
    if not scores:
        return _normalizer_guess(sample)
    scores.sort(reverse=True)
    best, encoding, enough = scores[0]
    second = scores[1][0] if len(scores) > 1 else 0.0
    confidence = best / (best + second) * min(1.0, best * 2) if best else 0.0
    return encoding, confidence, enough and best >= LEAST_LEAD * second


def _normalizer_guess(sample: bytes) -> tuple[str, float, bool]:
    """What charset-normalizer thinks; named in the message, never trusted."""
    from charset_normalizer import from_bytes

    best = from_bytes(sample[:20_000]).best()
    return (
        (best.encoding, max(0.0, min(0.5, best.coherence)), False) if best else ("none", 0.0, False)
    )


_WORD = re.compile(r"[^\W\d_]+")
# letters beyond ASCII of one language each; Czech, Polish, Hungarian or Turkish text read as
# Windows-1252 shows letters of several
_ALPHABETS = tuple(
    map(frozenset, (
        "éèêëàâäîïôöùûüçœæÿ", "äöüßé", "áéíñóúü", "ãáàâçéêíõóôúü", "àèéìíîòóùú", "æøåéèóòô",
        "åäöéü", "ëïéèöüáó", "àçèéíïòóúü",
    ))
)  # fmt: skip
_SYMBOLS = frozenset("“”‘’–—…€£§©®™°·«»¿¡ºª²³¹½¼¾±×÷µ•†‡‰‹›„‚¢¥¦¬\xa0\xad¶")
_BETWEEN_LETTERS = re.compile(
    r"(?<=[^\W\d_])[^\w\x00-\x7f]+(?=[^\W\d_])|(?<=[^\W\d_])[ºª²³¹]+(?=[^\W\d_])"
)
_SOFT = frozenset("’‘“”–—…·«»\xad\xa0")  # these may stand between two letters


def _western(text: str) -> bool:
    """Whether text read as Windows-1252 looks like a Western European language.

    Words are mostly ASCII, accented letters those of one language, no symbol stands inside a word.
    """
    sample = text[:SAMPLE]
    high = list(re.finditer(r"[^\x00-\x7f]", sample))
    if not high:  # beyond the sample
        high = list(re.finditer(r"[^\x00-\x7f]", text))
        sample = text
    letters = [match[0].lower() for match in high if match[0].isalpha() and match[0] not in "ºª"]
    fitting = max(sum(letter in alphabet for letter in letters) for alphabet in _ALPHABETS)
    if fitting < 0.9 * len(letters):
        return False
    bad = sum(match[0] not in _SYMBOLS for match in high if not match[0].isalpha())
    bad += sum(not set(match[0]) <= _SOFT for match in _BETWEEN_LETTERS.finditer(sample))
    words = [word for word in _WORD.findall(sample) if not word.isascii()]
    for word in words:
        accented = sum(not letter.isascii() for letter in word)
        bad += accented > max(1, len(word) * 2 // 3) or bool(re.search(r"[a-zß-ÿ][À-Þ]", word))
    return bad * 20 <= len(high)
