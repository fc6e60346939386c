from embedtune.documents.grid import Cell, markdown_table, spread


def test_ragged_rows_empty_rows_and_empty_columns() -> None:
    rows = [["a", "", "b"], ["1", " "], [], ["", "", ""], ["2", "", "3", ""]]
    assert markdown_table(rows) == "| a | b |\n| --- | --- |\n| 1 |  |\n| 2 | 3 |"


def test_bars_and_line_ends_in_cells() -> None:
    assert markdown_table([["a|b", "c"], ["1\n2", "3"]]) == (
        "| a\\|b | c |\n| --- | --- |\n| 1 2 | 3 |"
    )


def test_title_lines_stand_above_the_table() -> None:
    rows = [["Prices of 2024"], ["in coins"], ["Part", "Price"], ["valve", "3"]]
    assert markdown_table(rows) == (
        "Prices of 2024\n\nin coins\n\n| Part | Price |\n| --- | --- |\n| valve | 3 |"
    )


def test_a_header_that_names_only_the_values_stays_in_the_table() -> None:
    rows = [["", "Price"], ["valve", "3"]]
    assert markdown_table(rows) == "|  | Price |\n| --- | --- |\n| valve | 3 |"
    rows = [["Part", ""], ["valve", "3"]]
    assert markdown_table(rows) == "| Part |  |\n| --- | --- |\n| valve | 3 |"


def test_a_single_column_is_text() -> None:
    assert markdown_table([["One."], ["Two."]]) == "One.\n\nTwo."
    assert markdown_table([]) == markdown_table([["", ""]]) == ""


def test_rows_of_the_header_are_joined() -> None:
    rows = [["Region", "2024", "2024"], ["Region", "Q1", "Q2"], ["North", "1", "2"]]
    assert markdown_table(rows, heads=2) == (
        "| Region | 2024 Q1 | 2024 Q2 |\n| --- | --- | --- |\n| North | 1 | 2 |"
    )


def test_merged_cells_are_repeated() -> None:
    grid = spread([
        [Cell("Region", rows=2), Cell("2024", columns=2)],
        [Cell("Q1"), Cell("Q2")],
        [Cell("North"), Cell("1"), Cell("2")],
    ])  # fmt: skip
    assert grid == [["Region", "2024", "2024"], ["Region", "Q1", "Q2"], ["North", "1", "2"]]


def test_a_cell_over_the_whole_width_stays_single() -> None:
    assert spread([[Cell("Title", columns=3)], [Cell("a"), Cell("b"), Cell("c")]]) == [
        ["Title"], ["a", "b", "c"]
    ]  # fmt: skip


def test_long_text_is_not_repeated_and_wild_spans_are_bounded() -> None:
    long = "x" * 201
    assert spread([[Cell(long, rows=2), Cell("a")], [Cell("b")]]) == [[long, "a"], ["", "b"]]
    grid = spread([[Cell("a", rows=1 << 30, columns=1 << 30), Cell("b")], [Cell("c")]])
    assert len(grid[0]) == 1001
    assert [row.count("a") for row in grid] == [60, 60]
