"""Benchmarks beside peers: merging runs, ratios within a run, and the page made of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.peer_quality import PATH, Quality, change_of, comparison, load_quality
from benchmarks.peer_report import page
from benchmarks.peer_rows import OURS, Results, Row, Run, least_ratio, load, ratio, save
from benchmarks.peers import Figures

CELL = ("tiny", "int8", "engine", "decode_tps", 1)


def row(
    run: str,
    peer: str,
    *values: float,
    metric: str = "decode_tps",
    path: str = "engine",
    count: int = 1,
    width: str = "int8",
    weights: str | None = None,
) -> Row:
    return Row(
        run=run,
        shape="tiny",
        width=width,
        path=path,
        peer=peer,
        weights=weights or width,
        metric=metric,
        concurrency=count,
        values=list(values),
    )


def run(name: str) -> Run:
    return Run(id=name, commit="abc", host={"cores used": "2 of 2"}, versions={OURS: "1"}, repetitions=3, command="x")


def test_ratio_is_of_medians_and_says_how_many_times_better_ours_is() -> None:
    rows = [row("1", OURS, 30, 10, 20), row("1", "slow", 5), row("1", OURS, 4, metric="ttft_ms")]
    rows.append(row("1", "slow", 12, metric="ttft_ms"))
    assert ratio(rows, CELL, "slow") == 4
    assert ratio(rows, (*CELL[:3], "ttft_ms", 1), "slow") == 3  # less is better
    assert ratio(rows, CELL, "absent") is None


def test_ratio_never_compares_rows_of_two_runs() -> None:
    rows = [row("1", OURS, 10), row("1", "peer", 5), row("2", OURS, 100), row("3", "peer", 1)]
    assert ratio(rows, CELL, "peer") == 2


def test_ratio_is_of_the_newest_run_with_both() -> None:
    rows = [row("1", OURS, 10), row("1", "peer", 5), row("2", OURS, 30), row("2", "peer", 10)]
    assert ratio(rows, CELL, "peer") == 3


def test_least_ratio_is_to_the_best_peer_though_a_later_run_left_it_out() -> None:
    rows = [row("1", OURS, 10), row("1", "fast", 8), row("1", "slow", 2), row("2", OURS, 12), row("2", "slow", 2)]
    assert least_ratio(rows, CELL) == 1.25
    assert least_ratio([row("1", OURS, 10)], CELL) is None


def test_merging_replaces_rows_and_keeps_what_ratios_need() -> None:
    first = Results().merged(run("1"), [row("1", OURS, 10), row("1", "fast", 8), row("1", "slow", 2)])
    second = first.merged(run("2"), [row("2", OURS, 12), row("2", "slow", 3)])
    assert [(one.peer, one.run) for one in second.rows] == [("fast", "1"), (OURS, "1"), (OURS, "2"), ("slow", "2")]
    third = second.merged(run("3"), [row("3", OURS, 9), row("3", "fast", 8), row("3", "slow", 3)])
    assert {one.run for one in third.rows} == {"3"}
    assert [one.id for one in third.runs] == ["3"]


def test_a_run_that_writes_twice_is_in_the_file_once(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save(path, load(path).merged(run("1"), [row("1", OURS, 10)]))
    save(path, load(path).merged(run("1"), [row("1", OURS, 5, count=4)]))
    results = load(path)
    assert [one.id for one in results.runs] == ["1"]
    assert [one.concurrency for one in results.rows] == [1, 4]


@pytest.mark.parametrize(("values", "unsteady"), [((100, 110, 105), False), ((80, 110, 100), True), ((5,), False)])
def test_far_apart_repetitions_are_marked(values: tuple[float, ...], unsteady: bool) -> None:
    assert row("1", OURS, *values).unsteady is unsteady


def test_page_shows_medians_ratios_and_the_share_over_http() -> None:
    rows = [row("1", OURS, 200), row("1", "fast", 100), row("1", "slow", 50)]
    rows += [row("1", OURS, 180, path="http"), row("1", OURS, 0.03, metric="client_cpu", path="http")]
    rows += [row("1", OURS, 900, metric="pss_mib", path="http", count=0)]
    rows += [row("1", "slow", 1800, metric="pss_mib", path="http", count=0), row("1", "slow", 60, path="http")]
    rows.append(row("1", "unmeasured", 1000))
    lines = page(Results().merged(run("1"), rows), quality(ours=0.006, fast=0.01, slow=0.002)).splitlines()

    def cells(start: str) -> list[list[str]]:
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith(start)]

    ours_engine, ours_http = cells("| 8-bit | **ours**")
    assert ours_engine[2:9] == ["+0.6 %", "-", "200 (2.00x)", "-", "-", "-", "-"]
    assert cells("| 8-bit | fast")[0][2:5] == ["+1.0 %", "-", "100 (2.00x)"]
    assert ours_http[2:11] == ["+0.6 %", "1", "-", "-", "180 (3.00x)", "-", "3%", "90%", "900 (2.00x)"]
    assert [one[4] for one in cells("| 8-bit | slow")] == ["50 (4.00x)", "-"]
    assert not any("unmeasured" in line for line in lines), "a speed without its quality is no result"


def quality(**changes: float) -> list[Quality]:
    return [Quality(peer=peer, weights="int8", change=change, how="") for peer, change in changes.items()]


def test_rivals_are_formats_of_the_same_or_better_quality() -> None:
    """The fastest of them, at any width, of a run that measured both; the cheaper ones are none, however fast."""
    rows = [row("1", OURS, 100), row("1", "good", 40), row("1", "wide", 50, width="bf16"), row("1", "bad", 90)]
    rows += [row("1", "other", 95, width="int4", weights="Q"), row("2", "good", 99)]
    change = change_of(
        [*quality(ours=0.01, good=0.014, bad=0.03), Quality(peer="other", weights="Q", change=0.2, how="")]
    )
    times, rival = comparison(rows, CELL, OURS, change)  # type: ignore[misc]
    assert (times, rival.peer, rival.width) == (2, "wide", "bf16")
    rows.append(row("1", OURS, 300, width="int4"))
    assert comparison(rows, CELL, "bad", change)[0] == pytest.approx(100 / 90)  # type: ignore[index]
    cheap = [*quality(ours=0.01, bad=0.03), Quality(peer=OURS, weights="int4", change=0.02, how="")]
    assert comparison(rows, CELL, "bad", change_of(cheap))[0] == pytest.approx(300 / 90)  # type: ignore[index]
    assert comparison(rows, (CELL[0], "int4", *CELL[2:]), OURS, change) is None, "not measured"


def test_a_scheme_may_change_and_keep_its_name() -> None:
    known = [
        Quality(peer=OURS, weights="int8", change=0.5, until="2", how=""),
        Quality(peer=OURS, weights="int8", change=0.1, since="2", how=""),
    ]
    change = change_of(known)
    assert [change(row(name, OURS, 1)) for name in ("1", "2", "3")] == [0.5, 0.1, 0.1]
    assert change(row("1", "fast", 1)) is None and change(row("1", "fast", 1, width="bf16")) == 0


def test_the_page_is_that_of_the_results() -> None:
    assert PATH.with_name("RESULTS.md").read_text(encoding="utf-8") == page(
        load(PATH.with_name("RESULTS.json")), load_quality()
    )


def test_merging_keeps_rivals_of_other_widths() -> None:
    first = Results().merged(run("1"), [row("1", OURS, 10), row("1", "peer", 8, width="bf16")])
    second = first.merged(run("2"), [row("2", OURS, 11)])
    third = second.merged(run("3"), [row("3", "peer", 9, width="bf16")])
    assert {(one.run, one.peer) for one in third.rows} == {("1", OURS), ("1", "peer"), ("2", OURS), ("3", "peer")}


def test_a_figure_that_nothing_gave_is_left_out():
    """Streams that never decoded together have no rate; JSON would make null of it, which no later run could read."""
    figures = Figures("1", "tiny", "int8")
    figures.note("http", OURS, "decode_tps", 16, float("nan"))
    figures.note("http", OURS, "decode_tps", 16, 7.0)
    figures.note("http", OURS, "total_tps", 16, float("nan"))
    assert [(one.metric, one.values) for one in figures.rows()] == [("decode_tps", [7.0])]
