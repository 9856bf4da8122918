//! A reload that meets another one, or the end of the process.

use std::process::Stdio;
use std::time::Duration;

use super::site::{Site, runtime};
use super::{PRICED, load, says_so};
use crate::harness::block_on;

/// How often the process is ended in the middle of a reload.
const ENDS: u64 = 7;

#[test]
fn of_reloads_at_the_same_time_one_is_done_and_others_are_told_to_wait() {
    let mut site = Site::start("edge.yaml");
    let spawn = |_| site.reload_command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let outputs: Vec<_> = (0..4).map(spawn).collect::<Vec<_>>();
    let outputs = outputs.into_iter().map(|child| child.wait_with_output().unwrap());
    let mut done = 0;
    for output in outputs {
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => done += 1,
            Some(1) => assert!(said.contains("another reload is under way"), "{said}"),
            other => panic!("{other:?}: {said}"),
        }
    }
    assert!(done > 0);
    assert_eq!(site.reloaded()["generation"], done + 2);
    site.stop();
}

#[test]
fn a_reload_met_by_sigterm_or_sigkill_at_any_instant_loses_nothing() {
    let mut random = fastrand::Rng::with_seed(1);
    let (mut site, runtime) = (Site::start("edge.yaml"), runtime());
    let mut loads = load::start_with(site.server.grpc, site.dir.path(), 3, &runtime, &["metrics=[]"]);
    for round in 0..ENDS {
        site.until_acknowledged(&loads, 500);
        site.toggle("specs/market_ticks.yaml", "granularity:", &format!("{PRICED}granularity:"));
        let mut reload = site.reload_command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Where in the reload the signal comes is left to chance.
        std::thread::sleep(Duration::from_millis(random.u64(0..150)));
        let signal = if round % 2 == 0 { "TERM" } else { "KILL" };
        site.server.signal(signal);
        let status = site.server.wait();
        assert!(signal == "KILL" || status.success(), "{status}: {}", site.server.output());
        // Done, or told that nobody answers any more.
        reload.wait().unwrap();
        site.restart();
    }
    site.end(&mut loads, &runtime);
    says_so(&block_on(site.server.bars("market_ticks")));
    site.stop();
}

#[test]
fn a_process_killed_before_it_learns_of_a_new_window_length_counts_no_tick_twice() {
    let (mut site, runtime) = (Site::start("edge.yaml"), runtime());
    let mut loads = load::start(site.server.grpc, site.dir.path(), 4, &runtime);
    for _ in 0..2 {
        site.until_acknowledged(&loads, 4_000);
        site.toggle("specs/network_flows.yaml", "rollup: 1s", "rollup: 2s");
        site.server.signal("KILL");
        site.server.wait();
        site.restart();
    }
    loads.iter_mut().for_each(|load| load.end(&runtime));
    site.until_at_rest();
    site.stop();
}
