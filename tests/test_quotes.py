import pytest

from embedtune.quotes import find_quote, skeleton

TEXT = "It costs “€640”,\n  and INCLUDES boots. 费用：６４０欧元，\n含靴子。Café open."


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("and INCLUDES boots.", "and INCLUDES boots."),
        ('It costs "€640", and includes boots.', "It costs “€640”,\n  and INCLUDES boots."),
        ("**and includes** boots", "and INCLUDES boots"),
        ("费用:640欧元,含靴子", "费用：６４０欧元，\n含靴子"),
        ("cafe\u0301 open", "Café open"),
        ("€640", "€640"),
    ],
)
def test_a_quote_is_found_in_spite_of_space_width_case_and_marks(quote, found):
    place = find_quote(quote, TEXT)
    assert place is not None
    assert TEXT[place[0] : place[1]] == found


@pytest.mark.parametrize("quote", ["", "  ", "…", "not there", "and includes shoes", "o-p"])
def test_what_is_not_there_is_not_found(quote):
    assert find_quote(quote, TEXT) is None


def test_a_skeleton_keeps_letters_and_digits_of_all_scripts():
    assert skeleton("Ａ-b\n 1２ 靴，é") == "ab12靴e"
