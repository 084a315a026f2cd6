use super::*;

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn line(text: &str) -> PublicAddress {
    let (address, interfaces) = text.split_once(' ').unwrap();
    let interfaces = interfaces.split(',').map(str::to_owned).collect();
    PublicAddress { address: address.parse().unwrap(), mask_bits: 24, interfaces, line: 1 }
}

fn table(lines: &[&str]) -> Addresses {
    Addresses::of_file(&lines.iter().map(|text| line(text)).collect::<Vec<_>>())
}

fn names(table: &Addresses) -> Vec<&str> {
    table.interfaces().iter().map(|interface| interface.name.as_str()).collect()
}

fn own() -> Pnn {
    Pnn::new(0).unwrap()
}

fn best<'a>(table: &'a Addresses, text: &str) -> Option<&'a str> {
    table.best_interface(table.get(address(text)).unwrap())
}

#[test]
fn the_latest_address_and_the_latest_interface_stand_in_front() {
    let table = table(&["192.168.1.1 vd,vc", "10.0.0.3 lo", "10.0.0.2 va", "10.0.0.1 vb,va,lo"]);
    assert_eq!(names(&table), ["vb", "va", "lo", "vc", "vd"]);
    let listed: Vec<String> = table.public_ips().map(|ip| ip.addr.to_string()).collect();
    assert_eq!(listed, ["10.0.0.1", "10.0.0.2", "10.0.0.3", "192.168.1.1"]);
    let info = table.info(table.get(address("10.0.0.1")).unwrap());
    let order: Vec<String> = info.interfaces.iter().map(|i| i.name.to_string()).collect();
    assert_eq!((order, info.active_index), (vec!["vb".into(), "va".into(), "lo".into()], u32::MAX));
}

#[test]
fn an_interface_goes_with_the_last_address_that_names_it() {
    let mut table = table(&["10.0.0.1 va,vb", "10.0.0.2 va"]);
    assert_eq!(table.add(&line("10.0.0.2 lo")), Err(Known));
    table.remove(address("10.0.0.1"));
    assert_eq!(names(&table), ["va"]);
    assert_eq!(table.set_link("vb", true), None);
    table.remove(address("10.0.0.2"));
    assert!(table.is_empty() && names(&table).is_empty());
}

#[test]
fn addresses_spread_over_interfaces_that_are_up() {
    let mut table = table(&["10.0.0.1 va,vb", "10.0.0.2 va,vb", "10.0.0.3 va,vb"]);
    for (text, interface) in [("10.0.0.1", "va"), ("10.0.0.2", "vb"), ("10.0.0.3", "va")] {
        assert_eq!(best(&table, text), Some(interface));
        table.assign(address(text), own());
    }
    assert_eq!((table.references("va"), table.references("vb")), (2, 1));
    table.set_link("va", false);
    assert_eq!(best(&table, "10.0.0.1"), Some("vb"));
    table.set_link("vb", false);
    assert_eq!(best(&table, "10.0.0.1"), None);
    assert!(!table.is_hostable(table.get(address("10.0.0.1")).unwrap()));
}

#[test]
fn an_address_is_misplaced_on_a_dead_or_crowded_interface() {
    let mut table = table(&["10.0.0.1 va", "10.0.0.2 va", "10.0.0.3 va,vb"]);
    table.assign(address("10.0.0.3"), own());
    let misplaced =
        |table: &Addresses, best| table.is_misplaced(table.get(address("10.0.0.3")).unwrap(), best);
    assert!(!misplaced(&table, "vb"), "alone on its interface");
    table.assign(address("10.0.0.1"), own());
    assert!(misplaced(&table, "vb"), "two there, none here");
    assert!(!misplaced(&table, "va"), "it is there");
    table.unassign(address("10.0.0.1"), own());
    table.set_link("va", false);
    assert!(misplaced(&table, "vb"), "its interface is down");
}

#[test]
fn taking_an_address_off_its_interface_forgets_only_the_own_number() {
    let mut table = table(&["10.0.0.1 va"]);
    let (one, other) = (address("10.0.0.1"), Pnn::new(3).unwrap());
    table.assign(one, own());
    assert_eq!(table.get(one).unwrap().host, Some(own()));
    table.unassign(one, own());
    assert_eq!((table.get(one).unwrap().host, &table.get(one).unwrap().current), (None, &None));
    table.get_mut(one).unwrap().host = Some(other);
    table.unassign(one, own());
    assert_eq!(table.get(one).unwrap().host, Some(other));
}
