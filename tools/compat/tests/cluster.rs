//! The test cluster itself, with C daemons.

use ringmaster_compat::cluster::{Cluster, Config, processes};
use ringmaster_compat::require_c_cluster;

#[test]
fn three_c_daemons_become_healthy_and_a_killed_one_comes_back() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(3).with_public_addresses()).unwrap();
    let directory = cluster.directory().to_path_buf();
    for node in cluster.nodes() {
        let output = node.tool(&["pnn"]).unwrap();
        assert_eq!(output.stdout, format!("{}\n", node.index()));
        assert!(node.events().iter().any(|line| line == "startup"), "{:?}", node.events());
    }
    let before = cluster.settle().unwrap();
    assert_eq!(before.addresses.len(), 6);

    cluster.node(1).crash_daemon().unwrap();
    let without = cluster.settle_nodes(&[0, 2]).unwrap();
    assert!(without.addresses.iter().all(|(_, pnn)| pnn != "1"), "{without:?}");
    cluster.node(1).kill().unwrap();
    cluster.node(1).start().unwrap();
    let after = cluster.settle().unwrap();
    assert_ne!(before.generation, after.generation);

    drop(cluster);
    assert_eq!(processes::under(&directory), []);
    assert!(!directory.exists());
}

#[test]
fn a_panicking_test_leaves_no_process() {
    require_c_cluster!();
    let (sender, receiver) = std::sync::mpsc::channel();
    let failed = std::thread::spawn(move || {
        let cluster = Cluster::start(Config::new(1)).unwrap();
        sender.send(cluster.directory().to_path_buf()).unwrap();
        panic!("as a failing assertion would");
    });
    assert!(failed.join().is_err());
    let directory = receiver.recv().unwrap();
    assert_eq!(processes::under(&directory), []);
    assert!(!directory.exists());
}

#[test]
fn a_cluster_stops_in_the_orderly_way() {
    require_c_cluster!();
    let cluster = Cluster::start(Config::new(1)).unwrap();
    cluster.stop().unwrap();
}
