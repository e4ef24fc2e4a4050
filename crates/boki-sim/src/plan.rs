//! What a seed decides before the run: who takes part, how large everything is, and which faults there will be. Each kind
//! of fault is left out of some seeds, because faults can hide each other.

use boki_log::{Limits, NodeId};

use crate::damage::Damage;
use crate::rng::Rng;

/// How the roles are spread over processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topology {
    /// One process plays all roles on one disk.
    Alone,
    /// Engines, storage nodes and the sequencer are processes of their own, and messages get lost.
    Apart,
}

impl Topology {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Topology::Alone => "alone",
            Topology::Apart => "apart",
        }
    }
}

/// What the network does to messages.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// Least delay, in microseconds.
    pub delay_us: u64,
    /// What may come on top.
    pub jitter_us: u64,
    /// How many of a thousand messages are much later than that.
    pub late: u64,
    /// How many of a thousand are lost.
    pub lost: u64,
    /// How many of a thousand come twice.
    pub doubled: u64,
}

/// What disks are like.
#[derive(Clone, Debug)]
pub struct DiskPlan {
    /// A group takes this long at least, in microseconds.
    pub delay_us: u64,
    /// What may come on top.
    pub jitter_us: u64,
    /// Size of a segment file.
    pub segment_bytes: u64,
    /// About how many bytes of records a group has at most.
    pub group_bytes: usize,
}

/// How many faults of each kind the run has, about.
#[derive(Clone, Debug, Default)]
pub struct FaultPlan {
    /// A node loses its memory, and comes back.
    pub crashes: u64,
    /// Some nodes cannot reach others, and can again.
    pub partitions: u64,
    /// A wall clock jumps.
    pub clock_jumps: u64,
    /// A disk is slow for a while.
    pub slow_disks: u64,
    /// A disk has no room for a while.
    pub full_disks: u64,
    /// A write fails.
    pub failing_writes: u64,
    /// Dead segments are given back.
    pub reclaims: u64,
    /// What disks do that they must not.
    pub damages: Vec<Damage>,
    /// How many of a thousand answers never reach the client.
    pub lost_answers: u64,
}

/// What the clients do.
#[derive(Clone, Debug)]
pub struct WorkPlan {
    /// How many clients there are.
    pub clients: usize,
    /// Operations of each.
    pub operations: u64,
    /// Longest pause between two.
    pub think_us: u64,
    /// How many tags they use.
    pub tags: usize,
    /// How many books they use.
    pub books: u64,
    /// How many of a thousand operations are appends.
    pub appends: u64,
    /// How many of a thousand appends are trims.
    pub trims: u64,
    /// Largest usual payload.
    pub payload_bytes: u64,
}

/// See the module's description.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// How the roles are spread.
    pub topology: Topology,
    /// The nodes with an engine.
    pub engines: Vec<NodeId>,
    /// The nodes that store.
    pub storages: Vec<NodeId>,
    /// The node that orders.
    pub sequencer: NodeId,
    /// How many storage nodes must have a record.
    pub quorum: usize,
    /// The network.
    pub network: NetworkPlan,
    /// The disks.
    pub disk: DiskPlan,
    /// The faults.
    pub faults: FaultPlan,
    /// The clients.
    pub work: WorkPlan,
    /// What engines refuse.
    pub limits: Limits,
    /// Memory of an engine for records.
    pub cache_bytes: usize,
    /// Memory of a storage node for batches behind a gap.
    pub early_bytes: usize,
    /// After how long to send again.
    pub resend_us: u64,
    /// How often something is done with an engine's index: frozen, installed, merged.
    pub index_per_mille: u64,
}

impl Plan {
    /// The plan of `seed`.
    #[must_use]
    pub fn new(seed: u64, topology: Topology) -> Plan {
        let mut rng = Rng::new(seed, topology.name());
        let rng = &mut rng;
        let (engines, storages, sequencer, quorum) = match topology {
            Topology::Alone => (vec![NodeId(1)], vec![NodeId(1)], NodeId(1), 1),
            Topology::Apart => {
                let storages = if rng.chance(150) { 1 } else { 3 };
                let engines = (1..=rng.between(1, 3) as u16).map(NodeId).collect();
                (engines, (11..11 + storages).map(NodeId).collect(), NodeId(21), usize::from(storages / 2 + 1))
            }
        };
        let clients = engines.len() * rng.between(1, 4) as usize;
        let limits = Limits {
            read_records: if rng.chance(200) { 3 } else { Limits::default().read_records },
            read_bytes: if rng.chance(200) { 300 } else { Limits::default().read_bytes },
            waiting_reads: if rng.chance(100) { 2 } else { Limits::default().waiting_reads },
            pending_bytes: if rng.chance(100) { 3000 } else { Limits::default().pending_bytes },
            ..Limits::default()
        };
        Plan {
            seed,
            topology,
            storages,
            sequencer,
            quorum,
            network: network(rng),
            disk: disk(rng),
            faults: FaultPlan { damages: damages(seed), ..faults(rng, topology) },
            work: WorkPlan {
                clients,
                operations: if rng.chance(50) { 1500 } else { rng.between(150, 400) } / clients as u64 + 5,
                think_us: *rng.pick(&[200, 1000, 3000]).unwrap_or(&1000),
                tags: rng.between(2, 6) as usize,
                books: rng.between(1, 3),
                appends: rng.between(350, 650),
                trims: if rng.chance(250) { 0 } else { rng.between(20, 300) },
                payload_bytes: *rng.pick(&[16, 100, 100, 3000]).unwrap_or(&100),
            },
            limits,
            cache_bytes: *rng.pick(&[1 << 20, 1 << 20, 2000, 0]).unwrap_or(&0),
            early_bytes: if rng.chance(200) { 500 } else { 1 << 20 },
            resend_us: rng.between(3_000, 15_000),
            index_per_mille: *Rng::new(seed, "index plan").pick(&[0, 10, 100, 300]).unwrap_or(&0),
            engines,
        }
    }
}

fn network(rng: &mut Rng) -> NetworkPlan {
    let rough = rng.chance(750);
    NetworkPlan {
        delay_us: rng.between(20, 200),
        jitter_us: rng.between(1, 400),
        late: if rough { up_to(100, 400, rng) } else { 0 },
        lost: if rough { up_to(150, 450, rng) } else { 0 },
        doubled: if rough { up_to(150, 400, rng) } else { 0 },
    }
}

/// A number that is usually at most `usually`, and at most `most`.
fn up_to(usually: u64, most: u64, rng: &mut Rng) -> u64 {
    let most = if rng.chance(250) { most } else { usually };
    rng.between(0, most)
}

fn disk(rng: &mut Rng) -> DiskPlan {
    DiskPlan {
        delay_us: rng.between(50, 300),
        jitter_us: rng.between(1, 500),
        segment_bytes: *rng.pick(&[64 << 10, 64 << 10, 128 << 10]).unwrap_or(&(64 << 10)),
        group_bytes: *rng.pick(&[1 << 20, 1 << 20, 4000, 300]).unwrap_or(&(1 << 20)),
    }
}

fn faults(rng: &mut Rng, topology: Topology) -> FaultPlan {
    let mut some = |most: u64, left_out: u64| if rng.chance(left_out) { 0 } else { rng.between(1, most) };
    let plan = FaultPlan {
        crashes: some(12, 150),
        partitions: some(6, 400),
        clock_jumps: some(5, 400),
        slow_disks: some(6, 400),
        full_disks: some(3, 500),
        failing_writes: some(2, 600),
        reclaims: some(12, 250),
        lost_answers: some(150, 400),
        damages: Vec::new(),
    };
    match topology {
        Topology::Alone => FaultPlan { partitions: 0, ..plan },
        Topology::Apart => FaultPlan { reclaims: 0, ..plan },
    }
}

/// Some kinds of damage, in some seeds. Drawn apart from the rest, which is as it was before there was damage.
fn damages(seed: u64) -> Vec<Damage> {
    let mut rng = Rng::new(seed, "damages");
    let times = if rng.chance(500) { 0 } else { rng.between(1, 6) };
    let kinds: Vec<Damage> = Damage::ALL.iter().copied().filter(|_| rng.chance(500)).collect();
    (0..times).filter_map(|_| rng.pick(&kinds).copied()).collect()
}
