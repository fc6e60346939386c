import pytest

from embedtune.language import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The company shall publish its report.", "en"),
        ("公司应当披露年度报告。", "zh"),
        ("NVIDIA 的 GPU 有哪些", "zh"),
        ("使用 GPU 训练 embedding 模型", "zh"),  # 6 Han of 19 letters
        ("有価証券の発行に関する手続きは、法律の定めるところによります。", "ja"),
        ("증권의 발행 등록 제도에 관한 구체적인 범위", "ko"),
        ("Порядок выпуска ценных бумаг", "other"),
        ("L’été à Genève", "en"),
        ("12345 !!", "en"),
        ("", "en"),
    ],
)
def test_language_is_told_from_the_letters(text: str, language: str) -> None:
    assert language_of(text) == language


def test_one_chinese_word_in_english_text_stays_english() -> None:
    assert language_of("The term 股票 means shares issued by a company.") == "en"
