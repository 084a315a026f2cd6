//! Arbitrary values of the wire types, and the one round trip all of them must survive.
//!
//! Role: tests only. Declared structures get their strategy from `wire_struct!`; here are the types
//! with a list or borrowed bytes. Borrowed values live in leaked memory: a test's few megabytes.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::address::SockAddr;
use crate::connection::{
    AddressInfo, InterfaceList, InterfaceName, PublicIp, PublicIpInfo, PublicIpList, TickleList,
};
use crate::control::{ClientCount, InStatus};
use crate::database::{DbIdMap, VnnMap};
use crate::id::{DbId, Generation, Pnn, Rsn, Srvid};
use crate::node::NodeMap;
use crate::process::{EchoData, GLockList, NotifyData, Pid, RecMode, Role};
use crate::record::{
    Dmaster, KeyData, PushRecord, RecBuffer, RecBufferBuilder, RecData, RecordFlags, RecordHeader,
};
use crate::statistics::{
    DbStatistics, HOT_KEYS, HotKey, LatencyCounter, LockStatistics, StatisticsHistory,
};
use crate::text::{BareText, Text};
use crate::tunable::{TunableList, TunableName, TunableNames, TunableSetting};
use crate::wire::{Decode, Encode};

/// A structure from its fields, or a tuple struct from its one value.
macro_rules! arbitrary_struct {
    ($name:ident { $($field:ident: $ty:ty),+ }) => {
        impl proptest::arbitrary::Arbitrary for $name {
            type Parameters = ();
            type Strategy = proptest::strategy::BoxedStrategy<Self>;
            fn arbitrary_with((): ()) -> Self::Strategy {
                use proptest::strategy::Strategy as _;
                let fields = $crate::arbitrary::arbitrary_struct!(@strategy $($ty),+);
                fields
                    .prop_map(|$crate::arbitrary::arbitrary_struct!(@pattern $($field),+)| Self {
                        $($field),+
                    })
                    .boxed()
            }
        }
    };
    ($name:ident($inner:ty)) => {
        impl proptest::arbitrary::Arbitrary for $name {
            type Parameters = ();
            type Strategy = proptest::strategy::BoxedStrategy<Self>;
            fn arbitrary_with((): ()) -> Self::Strategy {
                use proptest::strategy::Strategy as _;
                proptest::arbitrary::any::<$inner>().prop_map($name).boxed()
            }
        }
    };
    // Nested pairs, because tuples end at twelve.
    (@strategy) => { proptest::strategy::Just(()) };
    (@strategy $ty:ty $(, $rest:ty)*) => {
        (
            proptest::arbitrary::any::<$ty>(),
            $crate::arbitrary::arbitrary_struct!(@strategy $($rest),*),
        )
    };
    (@pattern) => { () };
    (@pattern $field:ident $(, $rest:ident)*) => {
        ($field, $crate::arbitrary::arbitrary_struct!(@pattern $($rest),*))
    };
}
pub(crate) use arbitrary_struct;

/// Gives types an `Arbitrary` from a strategy.
macro_rules! arbitrary {
    ($($ty:ty = $strategy:expr;)+) => {$(
        impl Arbitrary for $ty {
            type Parameters = ();
            type Strategy = BoxedStrategy<Self>;
            fn arbitrary_with((): ()) -> Self::Strategy {
                $strategy.boxed()
            }
        }
    )+};
}

fn list<T: Arbitrary>() -> impl Strategy<Value = Vec<T>> {
    vec(any::<T>(), 0..5)
}

fn bytes() -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..60).prop_map(|bytes| &*bytes.leak())
}

/// At least as long as the shortest names the tunable controls take.
fn long_text() -> impl Strategy<Value = Text<'static>> {
    vec(1u8.., 7..60).prop_map(|bytes| Text::new(bytes.leak()))
}

fn buffer((db, records): (DbId, Vec<RecData<'_>>)) -> RecBuffer<'static> {
    let mut builder = RecBufferBuilder::new(db);
    for record in &records {
        builder.push(record);
    }
    RecBuffer::from_bytes(builder.into_bytes().leak()).expect("the builder's bytes are a buffer")
}

arbitrary! {
    Pnn = (0u32..=0xF000_0000).prop_map(|raw| Pnn::new(raw).expect("not reserved"));
    SockAddr = prop_oneof![
        (any::<Ipv4Addr>(), any::<u16>()).prop_map(|(ip, port)| SockAddr::new(IpAddr::V4(ip), port)),
        (any::<Ipv6Addr>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
            |(ip, port, flow, scope)| SockAddr::V6(SocketAddrV6::new(ip, port, flow, scope))
        ),
        Just(SockAddr::ZERO),
    ];
    Text<'static> = vec(1u8.., 0..60).prop_map(|bytes| Text::new(bytes.leak()));
    BareText<'static> = any::<Text<'static>>().prop_map(BareText);
    Role = prop_oneof![Just(Role::Off), Just(Role::On)];
    DbIdMap = list().prop_map(DbIdMap);
    VnnMap = (any::<Generation>(), list()).prop_map(|(generation, map)| VnnMap { generation, map });
    TickleList = (any::<SockAddr>(), list())
        .prop_map(|(addr, connections)| TickleList { addr, connections });
    AddressInfo<'static> = (any::<SockAddr>(), any::<u32>(), any::<Option<Text<'static>>>())
        .prop_map(|(addr, mask, interfaces)| AddressInfo { addr, mask, interfaces });
    PublicIpList = list().prop_map(PublicIpList);
    InterfaceName = vec(1u8.., 0..=17)
        .prop_map(|name| InterfaceName::new(&name).expect("short enough"));
    InterfaceList = list().prop_map(InterfaceList);
    PublicIpInfo = (any::<PublicIp>(), any::<u32>(), list())
        .prop_map(|(ip, active_index, interfaces)| PublicIpInfo { ip, active_index, interfaces });
    NodeMap = list().prop_map(NodeMap);
    NotifyData<'static> = (any::<Srvid>(), bytes())
        .prop_map(|(srvid, data)| NotifyData { srvid, data });
    EchoData<'static> = (any::<u32>(), bytes()).prop_map(|(timeout, data)| EchoData { timeout, data });
    GLockList = list().prop_map(GLockList);
    StatisticsHistory = list().prop_map(StatisticsHistory);
    HotKey<'static> = (any::<u32>(), bytes()).prop_map(|(count, key)| HotKey { count, key });
    TunableName<'static> = long_text().prop_map(TunableName);
    TunableNames<'static> = any::<Text<'static>>().prop_map(TunableNames);
    TunableSetting<'static> = (any::<u32>(), any::<TunableName<'static>>())
        .prop_map(|(value, name)| TunableSetting { value, name });
    TunableList = vec(any::<u32>(), 62).prop_map(|values| {
        let mut list = TunableList::default();
        for (tunable, value) in crate::tunable::TUNABLES.into_iter().zip(values) {
            list.set(tunable, value);
        }
        list
    });
    RecordHeader = (any::<u64>(), any::<u32>(), any::<u32>()).prop_map(|(rsn, dmaster, flags)| {
        let (dmaster, flags) = (Dmaster::from_raw(dmaster), RecordFlags(flags));
        RecordHeader { rsn: Rsn(rsn), dmaster, flags }
    });
    RecData<'static> = (any::<u32>(), bytes(), bytes())
        .prop_map(|(reqid, key, data)| RecData { reqid, key, data });
    RecBuffer<'static> = (any::<DbId>(), list()).prop_map(buffer);
    KeyData<'static> = (any::<DbId>(), any::<RecordHeader>(), bytes())
        .prop_map(|(db, header, key)| KeyData { db, header, key });
    PushRecord<'static> =
        (any::<Generation>(), any::<DbId>(), any::<RecordHeader>(), bytes(), bytes()).prop_map(
            |(generation, db, header, key, data)| PushRecord { generation, db, header, key, data }
        );
    InStatus<bool> = any::<bool>().prop_map(InStatus);
    InStatus<ClientCount> = any::<ClientCount>().prop_map(InStatus);
    InStatus<RecMode> = any::<RecMode>().prop_map(InStatus);
    InStatus<Pid> = (0..=i32::MAX).prop_map(|pid| InStatus(Pid(pid)));
    InStatus<Pnn> = (0..=i32::MAX.cast_unsigned())
        .prop_map(|raw| InStatus(Pnn::new(raw).expect("not reserved")));
    ClientCount = (0..=i32::MAX.cast_unsigned()).prop_map(ClientCount);
}

/// All static, because the macro declares plain names.
type StaticDbStatistics = DbStatistics<'static>;
type HotKeys = [HotKey<'static>; HOT_KEYS];

arbitrary_struct!(StaticDbStatistics {
    locks: LockStatistics,
    vacuum_latency: LatencyCounter,
    ro_delegations: u32,
    ro_revokes: u32,
    hop_count_bucket: [u32; 16],
    hot_keys: HotKeys
});

/// The value's bytes have the announced length, decode to the value, and no prefix of them makes
/// the decoder misbehave.
pub(crate) fn survives_the_wire<T>(value: &T) -> Result<(), TestCaseError>
where
    T: Encode + Decode<'static> + PartialEq + Debug,
{
    let bytes: &'static [u8] = value.to_bytes().leak();
    prop_assert_eq!(bytes.len(), value.encoded_len());
    let decoded = T::from_bytes(bytes);
    prop_assert_eq!(decoded.as_ref(), Ok(value));
    for len in 0..bytes.len() {
        if let Ok(shorter) = T::from_bytes(&bytes[..len]) {
            prop_assert!(shorter.encoded_len() <= len + 1, "{} of {} bytes", len, bytes.len());
        }
    }
    Ok(())
}

macro_rules! round_trips {
    ($($test:ident: $($ty:ty),+;)+) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(32))]
            $(
                #[test]
                fn $test(seed in ($(any::<$ty>(),)+)) {
                    round_trips!(@each seed, (0 1 2 3 4 5 6 7 8 9), $($ty),+);
                }
            )+
        }
    };
    (@each $seed:ident, ($index:tt $($indices:tt)*), $ty:ty $(, $rest:ty)*) => {
        survives_the_wire::<$ty>(&$seed.$index)?;
        round_trips!(@each $seed, ($($indices)*) $(, $rest)*);
    };
    (@each $seed:ident, ($($indices:tt)*)) => {};
}

mod round_trip {
    use super::*;
    use crate::capabilities::Capabilities;
    use crate::connection::{Connection, Interface, LinkState};
    use crate::database::*;
    use crate::node::*;
    use crate::process::{
        DebugLevel, DisableMessage, ElectionMessage, GLock, PidSrvid, ReclockLatency, Role,
        RunState, ServerId, SrvidMessage, Uptime,
    };
    use crate::statistics::Statistics;
    use crate::traverse::*;
    use crate::tunable::TunableValue;

    round_trips! {
        ids_survive_the_wire: Pnn, DbId, Generation, Srvid, Rsn;
        addresses_survive_the_wire: SockAddr, Connection, TickleList, AddressInfo<'static>;
        public_addresses_survive_the_wire:
            PublicIp, PublicIpList, PublicIpInfo, Interface, InterfaceList, LinkState;
        databases_survive_the_wire: DbIdEntry, DbIdMap, PullDb, TransDb, DbVacuum, GetDbSeqnum,
            VnnMap, TdbOpenFlags, RecordCount, DbSeqnum;
        traverses_survive_the_wire: TraverseStart, TraverseStartExt, TraverseAll, TraverseAllExt;
        nodes_survive_the_wire: NodeAndFlags, NodeMap, NodeFlagChange, BanState, Capabilities;
        processes_survive_the_wire:
            Pid, PidSrvid, NotifyData<'static>, EchoData<'static>, Uptime, RunState, DebugLevel;
        messages_survive_the_wire: SrvidMessage, DisableMessage, ElectionMessage, ServerId,
            GLock, GLockList, RecMode, Role, ReclockLatency;
        statistics_survive_the_wire: LatencyCounter, LockStatistics, Statistics,
            StatisticsHistory, DbStatistics<'static>;
        tunables_survive_the_wire: TunableList, TunableValue, TunableName<'static>,
            TunableNames<'static>, TunableSetting<'static>;
        texts_survive_the_wire: Text<'static>, BareText<'static>;
        records_survive_the_wire: RecordHeader, RecData<'static>, RecBuffer<'static>,
            KeyData<'static>, PushRecord<'static>;
    }
}
