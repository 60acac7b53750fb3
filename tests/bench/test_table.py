"""Tables, and a golden print: `python tests/bench/test_table.py` accepts a change to it."""

import io
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from fake_records import make_record, write_fake_records
from rich.console import Console
from test_summary import claims_about_cdni

from synthgrad.bench.records.record import read_records
from synthgrad.bench.scoring.summary import summarize
from synthgrad.bench.scoring.table import (
    Table,
    accuracy_table,
    all_tables,
    arms_table,
    claims_table,
    cost_table,
    iterations_table,
    print_tables,
    to_markdown,
)

GOLDEN = Path(__file__).parent / "golden_tables.txt"


def printed(tables, width=100):
    text = io.StringIO()
    print_tables(tables, Console(file=text, width=width))
    return text.getvalue()


def golden_print(folder):
    records, _ = read_records(write_fake_records(folder))
    text = printed(all_tables(summarize(records, claims=claims_about_cdni), records))
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return read_records(write_fake_records(tmp_path_factory.mktemp("records")))[0]


@pytest.fixture(scope="module")
def summaries(records):
    return summarize(records, claims=claims_about_cdni)


def row(table, label):
    [cells] = [cells for cells in table.rows if cells[0] == label]
    return dict(zip(table.columns, cells, strict=True))


class TestContent:
    def test_the_main_table_has_the_papers_columns_and_ours(self, summaries):
        cells = row(arms_table(summaries), "cDNI (linear)")
        assert cells["n"] == "3"
        assert cells["Test accuracy %"] == "98.53"
        assert cells["Test loss"] == "0.046"
        assert cells["Seconds"] == "4.85"
        assert cells["Seconds to 97 %"] == "2.83"
        assert cells["ms/it."] == "8.05"
        assert cells["\N{MULTIPLICATION SIGN} backprop's time [95 %]"].startswith("1.60 [1.5")

    def test_misses_are_told(self, summaries):
        table = arms_table(summaries)
        assert row(table, "no signal")["Seconds to 97 %"] == "missed"
        assert row(table, "DNI (linear)")["Seconds to 97 %"] == "3.83 (2)"
        assert row(table, "DNI (linear)")["Seconds to 98 %"] == "missed"

    def test_a_minority_that_reached_the_goal_is_told_beside_the_miss(self):
        runs = [make_record(10.0, 97.0 if seed == 0 else 50.0, seed=seed) for seed in range(3)]
        assert row(arms_table(summarize(runs)), "backprop")["Seconds to 97 %"] == "missed (1)"

    def test_an_unavailable_arm_is_a_row_with_its_reason(self, summaries):
        table = arms_table(summaries)
        assert row(table, "backprop (compiled)")["Test accuracy %"] == "not available"
        assert "backprop (compiled): not available: no C++ compiler" in table.notes
        assert "DNI (linear): seed 1: loss is NaN at iteration 247" in table.notes

    def test_an_interval_with_an_open_end_shows_it(self, summaries):
        cells = row(accuracy_table(summaries), "DNI (linear)")
        assert cells["Test accuracy % [95 %]"] == "97.30 [-∞, 97.40]"

    def test_accuracy_is_compared_at_three_equal_budgets(self, summaries):
        cells = row(accuracy_table(summaries), "backprop")
        assert cells["at 600 iterations"] == "98.57"
        assert cells["at 1.53 seconds"] == "96.98"
        assert cells["at 480 stage updates"] == "75.25"
        assert cells["Examples to 97 %"] == "89,600"

    def test_cost_tells_both_ways_of_counting(self, summaries):
        table = cost_table(summaries)
        cells = row(table, "cDNI (mirror), p = 0.2")
        assert cells["Speed-up an iteration"] == "1.19"
        assert cells["Speed-up an update"] == "0.24"
        assert cells["MFLOP an iteration"] == "300"
        assert cells["Synthesizer parameters"] == "404,000"
        assert cells["Memory MiB"] == "10.3"
        assert "20 interleaved rounds" in table.title

    def test_iterations_varied(self, records):
        table = iterations_table(records)
        assert table.columns[1:3] == ("150 iterations: seconds", "validation %")
        assert row(table, "no signal")["600 iterations: seconds"] == "1.51"
        assert [cells[0] for cells in table.rows] == [
            "backprop",
            "backprop (compiled)",
            "no signal",
            "DNI (linear)",
            "cDNI (linear)",
            "cDNI (mirror), p = 0.2",
        ]

    def test_a_share_that_no_run_reached_is_named_by_its_percentage(self):
        table = iterations_table(
            [make_record(10.0, 20.0, ending="failed", config={"iterations": 40})]
        )
        assert table.columns[1::2] == ("10 iterations: seconds", "50%: seconds", "100%: seconds")

    def test_claims_stand_beside_what_was_measured(self, summaries):
        [cells] = claims_table(summaries).rows
        assert cells[1].startswith("over 3-fold faster")
        assert cells[3] == "not reproduced"

    def test_rows_know_their_arms(self, summaries, records):
        for table in all_tables(summaries, records):
            assert len(table.arms) == len(table.rows)
        assert arms_table(summaries).arms[3] == "dni-linear"
        assert claims_table(summaries).arms == ("cdni-linear",)

    def test_no_records_have_no_tables(self):
        assert all_tables([], []) == []

    def test_every_table_stands_without_any_number(self):
        summaries = summarize([make_record(None, ending="unavailable")])
        for table in all_tables(summaries, []):
            assert {cell for cells in table.rows for cell in cells[1:]} <= {
                "\N{EN DASH}",
                "0",
                "not available",
            }


class TestPrint:
    def test_the_golden_print(self, tmp_path):
        assert golden_print(tmp_path) == GOLDEN.read_text(encoding="utf-8")

    def test_no_number_is_cut_or_wrapped_at_100_columns(self, summaries, records):
        tables = all_tables(summaries, records)
        lines = printed(tables).splitlines()
        assert max(len(line) for line in lines) <= 100
        for table in tables[:-1]:
            for cells in table.rows:
                assert any(all(cell in line for cell in cells) for line in lines)

    def test_ten_long_runs_with_large_numbers_still_fit(self, summaries):
        [arm] = [summary for summary in summaries if summary.arm == "cdni-mirror-p0.2"]
        goals = tuple(
            replace(
                goal,
                seconds=12345.6,
                examples=128e6,
                seconds_points=(1.0,) * 9 + (None,),
                examples_points=(1.0,) * 9 + (None,),
            )
            for goal in arm.goals
        )
        large = replace(
            arm,
            num_seeds=10,
            goals=goals,
            seconds=23456.7,
            seconds_per_iteration=0.0469,
            time_ratio=10.5,
            time_ratio_interval=(10.25, 10.75),
            examples_per_second=123456.0,
            stage_updates_per_second=12345.0,
            flops_per_iteration=12_345_000_000,
            synthesizer_parameters=12_345_678,
            memory_bytes=20 * 2**30,
        )
        for table in (arms_table([large]), accuracy_table([large]), cost_table([large])):
            text = printed([replace(table, notes=())])
            assert any(all(cell in line for cell in table.rows[0]) for line in text.splitlines())

    def test_a_narrow_terminal_or_pipe_cuts_no_number(self, summaries, records):
        tables = all_tables(summaries, records)[:-1]
        assert printed(tables, width=40) == printed(tables, width=100)

    def test_the_claims_wrap_at_any_width(self, summaries):
        text = printed([claims_table(summaries)], width=60)
        assert max(len(line) for line in text.splitlines()) <= 60

    def test_markup_in_a_text_is_printed_as_it_is(self):
        table = Table(title="t", columns=("Arm",), rows=(("[red]a[/]",),), arms=("a",))
        assert "[red]a[/]" in printed([table])


class TestMarkdown:
    def test_it_is_a_table_with_numbers_to_the_right(self):
        table = Table(
            title="t",
            columns=("Arm", "Seconds"),
            rows=(("a|b", "1.0"),),
            arms=("a",),
            notes=("why",),
        )
        assert to_markdown(table) == ("| Arm | Seconds |\n| --- | ---: |\n| a\\|b | 1.0 |\n\nwhy\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        GOLDEN.write_text(golden_print(Path(scratch)), encoding="utf-8")
