"""Each row of the guide's tables of what travels and of what happens has tests that prove it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bundle

ROOT = Path(bundle.ROOT)
GUIDE = ROOT / "docs" / "federation.md"
SERVER, SITE = "tests/federation/server/test_", "tests/federation/site/test_"
FAULTS, SLOW = "tests/slow/federation/test_faults", "tests/slow/federation/test_"

# First cell of a row -> the tests, as file::function without ".py" and without "test_".
TRAVELS = {
    "what travels": (
        f"{SITE}client::a_contribution_holds_what_the_site_has_and_who_it_is",
        f"{SITE}client::scores_travel_without_names",
        "tests/federation/filters/test_half_precision::types_come_back_and_the_wire_is_half_as_long",
    ),
    "in a census alone": (
        "tests/federation/test_census::too_few_cases_tell_nothing",
        "tests/federation/test_census::no_other_statistic_is_answered",
        "tests/federation/test_census::few_who_lack_something_are_no_more_told_of_than_few_who_have_it",
        "tests/federation/test_census::a_job_cannot_choose_which_cases_are_bad",
        f"{SLOW}simulator::the_census_tells_counts_and_quartiles_of_five_cases_a_site",
    ),
    "what does not": (
        f"{SLOW}deployment::no_patient_and_no_sites_path_is_at_the_server",
        f"{SLOW}deployment::the_coordinators_commands_read_nothing_of_a_site",
        f"{SLOW}deployment::what_does_not_travel_cannot_be_asked_for",
        f"{SLOW}correctness::private_parameters_and_patients_are_in_no_message",
        f"{FAULTS}::a_server_whose_program_was_changed_reads_nothing_of_a_site",
    ),
    "averaged": (
        f"{SERVER}round::a_modalitys_parameters_are_weighted_by_the_cases_that_have_it",
        f"{SERVER}round::shared_parameters_are_weighted_by_cases",
    ),
    "added up": (
        f"{SLOW}correctness::the_federated_bank_is_the_pooled_bank",
        f"{SLOW}correctness::a_site_without_flair_gets_flair_supervision",
    ),
    "a site that fails": (f"{SERVER}controller::one_sites_failure_is_that_sites",),
}
HAPPENS = {
    "a trainer is killed": (
        f"{SLOW}deployment::the_killed_trainer_was_replaced",
        f"{SITE}executor::a_task_that_kills_every_trainer_fails_and_the_next_one_has_a_new_one",
    ),
    "a trainer raises an error": (
        f"{SITE}client::what_went_wrong_is_told_without_patients_and_paths",
        f"{SERVER}controller::a_site_that_is_back_takes_part_again",
    ),
    "a whole site dies": (
        f"{FAULTS}::a_killed_site_does_not_keep_the_others_from_finishing",
        f"{FAULTS}::a_site_that_came_back_and_a_late_joiner_are_in_the_next_job",
    ),
    "the only owner of a modality dies": (
        f"{SERVER}silent_holder::a_holder_that_died_is_waited_for_once",
        f"{SERVER}silent_holder::it_counts_again_when_it_has_answered",
    ),
    "a site comes late": (
        f"{FAULTS}::a_site_that_came_back_and_a_late_joiner_are_in_the_next_job",
    ),
    "a site answers too late, or never": (
        f"{FAULTS}::a_straggler_is_waited_for_as_long_as_was_said",
    ),
    "the server's disk is full while it keeps": (
        f"{SERVER}trust::a_full_disk_is_that_contributions_refusal",
        f"{SERVER}trust::a_damaged_file_is_that_contributions_drop_and_no_wrong_mean",
    ),
    "NaN, infinite numbers": (
        f"{FAULTS}::a_damaged_update_is_refused_as_a_whole_with_its_reason",
        f"{SERVER}round::what_is_refused_leaves_no_trace_and_the_rest_counts",
    ),
    "a site's facts or scores": (
        f"{SERVER}hostile_answers::an_ill_typed_value_is_that_sites_refusal_and_nothing_else",
        f"{SERVER}hostile_answers::ill_typed_scores_are_that_sites_refusal_and_nothing_else",
        f"{FAULTS}::a_damaged_update_is_refused_as_a_whole_with_its_reason",
    ),
    "sums that no cases can have": (
        f"{SERVER}statistics_check::sums_that_no_patches_have_are_refused",
        f"{SERVER}statistics_check::impossible_elections_are_refused",
    ),
    "a site claims far more cases": (
        f"{SERVER}trust::sums_count_as_far_as_the_cases_that_the_server_believes",
        f"{SERVER}trust::a_billion_cases_weigh_ten_times_the_median",
        f"{SERVER}trust::the_coordinators_list_counts_and_refuses_strangers",
    ),
    "a site claims far more held-out cases": (
        f"{SERVER}round_log::a_site_that_claims_many_held_out_cases_does_not_decide_the_table_of_all",
        f"{SERVER}trust::elections_weigh_at_most_ten_times_the_median_of_those_that_are_held",
    ),
    "a site adds its statistics a second time": (
        f"{SERVER}controller::a_site_adds_its_sums_once_whatever_it_says_of_them",
    ),
    "a site connects that the coordinator's list": (
        f"{SERVER}controller::a_site_that_the_list_leaves_out_is_never_asked_and_scores_nothing",
    ),
    "a job says `own_process: false`": (
        f"{SITE}executor::a_thread_of_nvflares_process_runs_in_the_simulator_alone",
    ),
    "a site sends an update that is turned round": (
        f"{SERVER}trust::a_flipped_update_within_the_norm_bound_is_marked",
        f"{SERVER}trust::clipped_bounds_each_group_by_its_median_norm",
        f"{SERVER}trust::trimmed_leaves_out_the_ends",
    ),
    "the server sends a damaged model": (
        f"{FAULTS}::a_poisoned_broadcast_is_refused_by_every_site_and_costs_an_attempt",
    ),
    "a site has no cases": (
        f"{FAULTS}::a_site_without_cases_says_so_and_the_others_finish",
        f"{FAULTS}::a_full_disk_costs_the_checkpoint_and_not_the_round",
        f"{SITE}client::a_site_with_wrong_settings_answers_why_and_stays",
    ),
    "a site's own state is damaged": (
        f"{FAULTS}::a_damaged_state_of_a_site_is_set_aside_and_told",
        f"{SITE}state::a_state_that_does_not_fit_is_set_aside_too",
    ),
    "a site has a state of another federation": (
        f"{SITE}state::another_federations_states_are_kept_and_not_read",
    ),
    "the server changes the word": (
        f"{SITE}client::a_server_that_alternates_words_costs_one_state_and_that_is_kept",
        f"{SITE}client::what_is_no_word_of_a_run_costs_the_site_no_state",
    ),
    "too few of a site's cases": (
        f"{SITE}client::statistics_of_few_cases_stay_and_the_site_trains_all_the_same",
        f"{SLOW}correctness::a_site_that_withholds_its_statistics_pretrains_with_those_of_the_others",
    ),
    "a job would pass the site's cap": (
        f"{SITE}admission::what_the_site_checks_is_what_nvflare_applies",
        f"{SITE}admission::the_coordinator_is_told_why_and_the_trainer_asked_for_nothing",
        f"{SITE}admission::a_cap_asks_for_noise_and_for_room",
    ),
    "a case can be read but is odd": (
        f"{SITE}odd_cases::a_site_logs_the_case_and_the_number_and_trains_with_it",
    ),
    "code or a config has changed": (
        f"{SITE}client::code_that_has_changed_on_disk_is_refused_with_its_name",
        f"{SERVER}persistor::a_round_does_not_begin_where_code_has_changed_on_disk",
    ),
    "two jobs of a site spend privacy": (
        "tests/federation/filters/test_accountant::two_processes_that_release_at_once_lose_nothing",
    ),
    "too few contributions": (
        f"{SERVER}controller::a_round_without_quorum_is_asked_again_and_then_the_job_stops",
    ),
    "the server dies": (
        f"{FAULTS}::a_killed_server_goes_on_from_its_newest_whole_state_and_says_so",
    ),
    "the server's disk is full": (
        f"{SERVER}controller::a_full_disk_ends_the_job_and_the_log_says_which_round_was_not_saved",
        f"{SERVER}controller::a_round_is_logged_as_committed_after_it_is_on_disk",
        f"{SERVER}states::a_disk_that_is_full_leaves_the_states_of_before",
    ),
    "a state at the server is damaged": (
        f"{FAULTS}::a_killed_server_goes_on_from_its_newest_whole_state_and_says_so",
        f"{SERVER}states::where_nothing_is_whole_nothing_starts_anew_in_silence",
    ),
    "the same job comes twice": (f"{FAULTS}::the_same_job_once_more_is_refused_and_moves_nothing",),
    "a job resumes with another bundle": (
        f"{FAULTS}::a_resume_with_another_voxel_size_is_refused_and_the_change_is_listed",
        f"{SERVER}persistor::a_resume_with_other_settings_is_refused_until_they_are_accepted",
        f"{SITE}local_training::a_site_goes_on_with_a_change_where_job_and_site_accept_it",
    ),
    "a site has done harm": (
        f"{SERVER}states::one_can_go_back_behind_a_sites_first_contribution",
        f"{SERVER}trust::the_coordinators_list_counts_and_refuses_strangers",
    ),
}


def rows_after(mark: str) -> list[str]:
    """List the first cells of the first table after a line of the guide, without its head."""
    lines = GUIDE.read_text(encoding="utf-8").split(f"{mark}\n", 1)[1].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append(line.split("|")[1].strip())
    return cells


@pytest.mark.parametrize(
    ("mark", "proofs"),
    [("# Federation", TRAVELS), ("## When something goes wrong", HAPPENS)],
    ids=["travels", "happens"],
)
def test_each_row_is_proved(mark, proofs):
    rows = rows_after(mark)
    assert len(rows) == len(proofs)
    # The longest beginning that fits: a disk that is full stands in two rows.
    found = [
        max((key for key in proofs if row.startswith(key)), key=len, default=row) for row in rows
    ]
    assert sorted(found) == sorted(proofs)


@pytest.mark.parametrize(
    "proof", sorted({p for t in (TRAVELS, HAPPENS) for v in t.values() for p in v})
)
def test_a_proof_is_there(proof):
    file, name = proof.split("::")
    text = (ROOT / f"{file}.py").read_text(encoding="utf-8")
    assert re.search(rf"^def test_{name}\(", text, re.MULTILINE)
