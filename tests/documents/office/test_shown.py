"""Values in number formats, as spreadsheet programs show them (worked out by hand)."""

import pytest

from embedtune.documents.office.shown import BUILT_IN, shown

FRIDAY = 45352  # 1 March 2024


@pytest.mark.parametrize(("value", "code", "text"), [
    (1234567.891, "General", "1234567.891"), (0.1 + 0.2, "General", "0.3"), (3, "", "3"),
    (123456789012345, "General", "123456789012345"), (1e20, "General", "1E+20"),
    (0.1234, "0.0%", "12.3%"), (0.5, "0%", "50%"), (-0.123, "0%;-0%", "-12%"),
    (1234.5, "#,##0.00", "1,234.50"), (0, "#,##0", "0"), (12345678, "#,##0", "12,345,678"),
    (-1234.5, "#,##0.00;(#,##0.00)", "(1,234.50)"), (1234.567, "0.00_);(0.00)", "1234.57"),
    (0, '#,##0;-#,##0;"-"', "-"), (5, ";;;", ""), (-5, "0", "-5"), (-0.001, "0.00", "0.00"),
    (7, "00000", "00007"), (3, "#.##", "3"), (0.5, "#.##", ".5"), (1, "0.0#", "1.0"),
    (0.005, "0.00", "0.01"), (2.675, "0.00", "2.68"), (12345, "0.00E+00", "1.23E+04"),
    (1500000, '0.0,,"M"', "1.5M"), (12000, "#,##0,", "12"), (0.5, "# ?/?", "0.5"),
    (1234.5, "$#,##0.00", "$1,234.50"), (-1234, "$#,##0", "-$1,234"), (3, '0"件"', "3件"),
    (1234.5, "[$¥-804]#,##0.00", "¥1,234.50"), (1234, "#,##0元", "1,234元"),
    (12, "[Red]0.0", "12.0"), (-2, '0.0 "℃"', "-2.0 ℃"), (5551234567, "000-000-0000", "5551234567"),
    (100, '_ * #,##0.00_ ;_ * -#,##0.00_ ;_ * "-"??_ ;_ @_ ', "100.00"),
])  # fmt: skip
def test_numbers(value: float, code: str, text: str) -> None:
    assert shown(value, code) == text


@pytest.mark.parametrize(("value", "code", "text"), [
    (FRIDAY, "yyyy-mm-dd", "2024-03-01"), (FRIDAY, "d-mmm-yy", "1-Mar-24"),
    (FRIDAY, "dddd, mmmm d", "Friday, March 1"), (FRIDAY, "[$-804]yyyy/m/d", "2024/3/1"),
    (FRIDAY, 'yyyy"年"m"月"d"日";@', "2024年3月1日"), (FRIDAY, "aaaa", "星期五"),
    (FRIDAY, "[$-F800]dddd\\,\\ mmmm\\ dd\\,\\ yyyy", "2024-03-01"),
    (FRIDAY + 0.5, "yyyy-mm-dd hh:mm", "2024-03-01 12:00"), (0.75, "h:mm AM/PM", "6:00 PM"),
    (0.75, "上午/下午h时mm分", "下午6时00分"), (0.0001, "mm:ss.0", "00:08.6"),
    (1.5, "[h]:mm:ss", "36:00:00"), (-0.25, "[h]:mm", "-6:00"), (0.05, "[mm]:ss", "72:00"),
    (1, "yyyy-mm-dd", "1900-01-01"), (59, "yyyy-mm-dd", "1900-02-28"),
    (61, "yyyy-mm-dd", "1900-03-01"), (-3, "yyyy-mm-dd", "-3"), (3e6, "yyyy", "3000000"),
])  # fmt: skip
def test_dates_and_times(value: float, code: str, text: str) -> None:
    assert shown(value, code) == text


def test_the_other_calendar() -> None:
    assert shown(FRIDAY - 1462, "yyyy-mm-dd", since_1904=True) == "2024-03-01"


def test_formats_that_files_name_by_number_only() -> None:
    assert shown(FRIDAY, BUILT_IN[14]) == "2024-03-01"
    assert shown(FRIDAY, BUILT_IN[31]) == "2024年3月1日"
    assert shown(0.125, BUILT_IN[10]) == "12.50%"


def test_the_same_dates_as_openpyxl() -> None:
    from openpyxl.utils.datetime import from_excel

    for serial in (1, 58.5, 60.5, 366, 20000.25, FRIDAY + 0.999, 73050):
        expected = from_excel(serial)
        assert shown(serial, "yyyy-mm-dd hh:mm:ss") == expected.strftime("%Y-%m-%d %H:%M:%S")
