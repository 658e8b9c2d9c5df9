//! The conformance suite of the `Provider` trait: every case over every implementation, opened through the front door,
//! against the simulator through its in-process door. The cases are written from the trait's contract and the
//! vendors' pages; they must never know how a client does its work, only what the contract promises of it.
//!
//! A case ends without a breach of a cloud's rules (rates, signatures, limits, states), unless it names the rule that
//! it breaks on purpose.

#![allow(clippy::unwrap_used)]

mod rig;
mod scene;
mod tap;

use std::sync::Arc;

use rekeyd::model::ProviderKind;
use rekeyd::provider::Api;
use rig::{Implementation, Rig};

/// Every way to a cloud: each cloud by its own API, and CVM by its legacy endpoint, which answers as its page says or
/// in its oldest shape wherever it may.
const IMPLEMENTATIONS: [Implementation; 6] = [
    Implementation::of(ProviderKind::TencentLighthouse, Api::V3),
    Implementation::of(ProviderKind::TencentCvm, Api::V3),
    Implementation::of(ProviderKind::TencentCvm, Api::Legacy),
    Implementation { flat: true, ..Implementation::of(ProviderKind::TencentCvm, Api::LegacySha1) },
    Implementation::of(ProviderKind::AlibabaEcs, Api::V3),
    Implementation::of(ProviderKind::BaiduBcc, Api::V3),
];

/// Runs a case on every provider, to the end, and only then says where it failed.
async fn hold<F: Future<Output = ()> + Send + 'static>(case: fn(Arc<Rig>) -> F) {
    let mut held = 0;
    let mut broken = Vec::new();
    for implementation in IMPLEMENTATIONS {
        let rig = Arc::new(Rig::new(implementation));
        assert_eq!(rig.provider.limits().provider, implementation.kind);
        if tokio::spawn(case(rig.clone())).await.is_err() {
            broken.push(format!("{implementation:?}: panicked, see above"));
        } else if !rig.misdeeds().is_empty() {
            broken.push(format!("{implementation:?}: the client broke the cloud's rules: {:#?}", rig.misdeeds()));
        } else if !rig.tap.sent().iter().all(|sent| sent.legacy == rig.is_legacy()) {
            broken.push(format!("{implementation:?}: it called another API: {:#?}", rig.tap.sent()));
        } else {
            held += 1;
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert_eq!(held, 6, "implementations");
}

macro_rules! suite {
    ($($module:ident: $($case:ident),* ;)*) => {
        $(mod $module;)*
        /// Every case, by module.
        const CASES: &[(&str, &[&str])] = &[$((stringify!($module), &[$(stringify!($case)),*])),*];
        /// The modules' own texts.
        const SOURCES: &[&str] = &[$(include_str!(concat!(stringify!($module), ".rs"))),*];
        mod every_provider {
            $($(#[tokio::test] async fn $case() { super::hold(super::$module::$case).await; })*)*
        }
    };
}

suite! {
    listing:
        instances_by_tags_are_found_to_the_last_page_each_once,
        instances_by_two_tags_bear_both,
        a_selection_by_more_tags_than_any_filter_takes_is_decided_here,
        a_tag_matches_value_for_value_in_its_own_case,
        a_filter_that_the_cloud_forgets_lets_nobody_slip_in,
        a_wildcard_in_a_tag_is_a_letter_like_any_other,
        a_tag_that_holds_the_wires_own_punctuation_is_found,
        an_empty_tag_value_is_a_value,
        whichever_look_is_closed_to_the_account_a_selection_is_whole_or_denied,
        nobody_bears_a_tag_that_does_not_exist,
        all_is_everybody_but_those_that_are_gone,
        of_ids_the_unknown_are_missing_and_the_known_all_there,
        of_ids_that_are_all_unknown_nobody_is_found,
        an_id_asked_for_twice_comes_once,
        no_ids_are_nobody_and_not_everybody,
        bound_to_a_pair_are_those_that_show_it_to_the_last_page,
        nobody_is_bound_to_a_pair_that_is_gone;
    moving:
        machines_made_between_two_pages_hide_nobody,
        machines_released_between_two_pages_hide_nobody,
        as_many_made_as_released_between_two_pages_hide_nobody,
        pairs_that_come_and_go_between_two_pages_hide_none;
    looks:
        each_power_of_a_machine_is_shown_as_what_it_means,
        a_machine_isolated_for_money_is_one_to_keep_off,
        keys_name_tags_and_zone_are_shown,
        addresses_are_shown_and_a_machine_without_them_is_still_read,
        a_disk_that_was_made_anew_shows_and_any_other_operation_does_not,
        a_windows_machine_is_unfit_and_says_why,
        a_machine_of_a_scaling_group_is_unfit_and_says_why,
        a_boot_is_seen_by_its_marker_where_the_cloud_shows_one,
        an_operation_is_shown_from_its_acceptance_to_its_end,
        an_operation_that_failed_says_so,
        every_selection_shows_an_instance_alike;
    pairs:
        an_imported_key_is_found_by_its_name_with_the_same_public_key,
        a_name_is_found_exactly_among_those_that_contain_it,
        a_wildcard_finds_no_pair,
        pairs_of_a_prefix_are_listed_to_the_last_page,
        how_many_are_bound_is_shown_where_the_cloud_says_it,
        a_strangers_unreadable_key_hides_no_other_pair,
        a_key_pair_that_exists_is_never_imported_again,
        a_key_that_exists_under_another_name_is_known_already_where_the_cloud_compares_keys,
        a_name_that_breaks_the_rule_is_refused_and_makes_nothing,
        a_kind_of_key_that_the_cloud_does_not_list_is_refused,
        a_full_quota_is_the_accounts,
        a_free_pair_is_deleted_and_its_neighbours_stay,
        a_bound_pair_is_in_use_and_stays,
        a_pair_that_is_being_bound_is_not_deleted,
        a_pair_that_is_gone_already_says_so_when_deleted;
    bind:
        a_bind_of_stopped_machines_is_accepted_and_shows_once_it_has_settled,
        a_bind_of_a_running_machine_disturbs_it_as_the_limits_say,
        a_second_bind_replaces_the_first,
        a_pair_bound_already_is_accepted_again_or_says_already,
        a_batch_of_bind_max_is_taken_and_one_more_is_refused,
        a_bind_of_nobody_does_nothing,
        a_windows_machine_in_a_batch_is_told_from_the_good_ones,
        a_poisoned_machine_in_a_batch_is_told_from_the_good_ones,
        a_machine_under_operation_in_a_batch_is_told_from_the_good_ones,
        a_machine_that_is_gone_fails_no_more_than_its_batch,
        a_bind_of_a_pair_that_is_gone_blames_the_request,
        an_unbind_takes_the_pair_off_and_no_other,
        an_unbind_of_a_pair_that_is_not_there_changes_nothing;
    power:
        each_change_of_power_is_accepted_and_comes_to_its_end,
        a_machine_in_the_wrong_power_is_to_blame_and_stays_as_it_is,
        one_in_the_wrong_power_stops_all_of_its_batch_or_none_but_itself,
        a_machine_isolated_for_money_is_not_started,
        a_machine_under_operation_is_busy,
        a_machine_that_is_gone_is_not_found,
        a_batch_of_power_max_is_taken_and_one_more_is_refused;
    foretold:
        what_a_stop_could_hurt_is_shown_where_the_cloud_sells_it,
        whom_the_cloud_would_refuse_is_told_where_it_can_be_asked,
        a_state_that_passes_is_no_refusal,
        a_dry_run_disturbs_nobody_and_says_what_the_call_would_meet,
        a_dry_run_of_a_denied_call_is_denied,
        a_question_that_is_closed_to_the_account_is_denied_and_others_stay_open,
        how_many_pairs_there_may_be_is_told_where_it_can_be_asked;
    faults:
        a_throttled_look_is_repeated_until_it_goes_through,
        a_look_without_an_answer_is_repeated_until_it_goes_through,
        a_look_is_given_up_after_thirty_seconds,
        a_throttled_change_is_repeated_until_it_goes_through,
        a_throttled_change_is_given_up_at_its_before,
        a_change_whose_time_is_up_is_never_sent,
        a_change_of_unknown_outcome_is_sent_once_and_says_so,
        what_a_change_of_unknown_outcome_did_is_found_by_looking,
        an_answer_that_takes_long_is_waited_for;
    rubbish:
        a_look_takes_no_rubbish,
        a_change_answered_with_rubbish_is_of_unknown_outcome_and_sent_once,
        ten_megabytes_of_rubbish_are_rubbish,
        half_an_answer_is_none,
        a_redirect_is_not_followed,
        an_answer_larger_than_the_door_takes_is_rubbish,
        a_request_that_never_left_was_not_done,
        a_gateways_page_is_not_the_clouds_word_that_something_is_gone,
        one_mistyped_value_anywhere_in_a_look_hides_nothing,
        one_mistyped_value_anywhere_in_the_answer_to_a_change_leaves_its_outcome_open;
    manners:
        the_limits_answer_every_question,
        a_wrong_secret_is_denied_and_nothing_is_done,
        a_clock_that_is_off_by_an_hour_is_denied,
        a_request_that_expired_on_its_way_is_signed_anew_and_sent_once_more,
        the_difference_of_the_clocks_is_that_of_the_newest_answer,
        an_answer_without_a_date_leaves_the_difference_as_it_was,
        a_session_token_goes_with_every_call_where_there_is_one,
        fifty_calls_in_a_row_keep_to_the_documented_rates,
        looks_side_by_side_keep_to_the_documented_rates,
        a_rate_of_the_operators_own_is_kept,
        a_change_whose_turn_comes_after_its_before_is_not_sent,
        an_answer_that_repeats_the_request_brings_no_secret_into_the_error,
        looks_change_nothing,
        every_attempt_is_signed_anew;
}

#[test]
fn every_case_of_every_module_is_in_the_table_and_runs_on_every_way_to_each_cloud() {
    for kind in ProviderKind::ALL {
        let ways = IMPLEMENTATIONS.iter().filter(|one| one.kind == kind).count();
        assert_eq!(ways, if kind == ProviderKind::TencentCvm { 3 } else { 1 }, "{kind}");
    }
    for ((module, cases), source) in CASES.iter().zip(SOURCES) {
        let written: Vec<&str> = source
            .lines()
            .filter_map(|line| line.strip_prefix("pub async fn ")?.split_once('('))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(written, *cases, "{module}: written and listed, in the same order");
    }
    assert_eq!(CASES.iter().map(|(_, cases)| cases.len()).sum::<usize>(), 107, "cases, each on six implementations");
}
