//! This machine, read through `sysinfo`.

use std::time::{Duration, Instant};

use sysinfo::{DiskRefreshKind, Disks, MINIMUM_CPU_UPDATE_INTERVAL, Networks, System};

use super::Ticks;
use crate::model::Value;

/// Disks fill slowly.
const DISKS_EVERY: Duration = Duration::from_secs(1);
/// A reading that took t is not repeated for this many t: each kind of reading stays below half a percent of a core.
const REST: u32 = 200;

/// This machine, as `sysinfo` reads it.
pub struct Machine {
    cpus: Cpus,
    memory: System,
    networks: Networks,
    disks: Disks,
    /// Disks whose counters have a reading before this one to be compared with.
    counted: Vec<String>,
    load_pace: Pace,
    network_pace: Pace,
    disk_pace: Pace,
}

impl Machine {
    /// A machine read once `every`.
    pub fn new(every: Duration) -> Result<Self, sysinfo::Error> {
        Ok(Self {
            cpus: Cpus::new(every)?,
            memory: System::new()?,
            networks: Networks::new_with_refreshed_list()?,
            disks: Disks::new()?,
            counted: Vec::new(),
            load_pace: Pace::new(Duration::ZERO, every),
            network_pace: Pace::new(Duration::ZERO, every),
            disk_pace: Pace::new(DISKS_EVERY, every),
        })
    }

    /// Reads whatever is due at this beat.
    pub fn read(&mut self, ticks: &mut Ticks) {
        self.load_pace.run(|| {
            self.cpus.read(ticks);
            read_memory(&mut self.memory, ticks);
        });
        self.network_pace.run(|| read_networks(&mut self.networks, ticks));
        self.disk_pace.run(|| read_disks(&mut self.disks, &mut self.counted, ticks));
    }
}

/// What a reading is of: the dimension `resource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// All cores together, or one.
    Cpu,
    /// RAM or swap.
    Memory,
    /// A disk, by its mount point.
    Disk,
    /// An interface.
    Network,
}

impl Resource {
    /// Its name in the dimension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Network => "network",
        }
    }
}

/// When a kind of reading is due.
struct Pace {
    every: Duration,
    next: Instant,
    cost: Duration,
}

impl Pace {
    /// Due `every` so often, asked once a `beat`; half a beat early counts, for beats are not exact.
    fn new(every: Duration, beat: Duration) -> Self {
        Self { every: every.saturating_sub(beat / 2), next: Instant::now(), cost: Duration::MAX }
    }

    fn run(&mut self, read: impl FnOnce()) {
        let start = Instant::now();
        if start >= self.next {
            read();
            // One reading that had to wait for a core says little: the cost believed in at most doubles.
            self.cost = start.elapsed().min(self.cost.saturating_mul(2));
            self.next = start + self.every.max(self.cost.saturating_mul(REST));
        }
    }
}

/// `sysinfo` measures CPU usage over 200 ms or more. Several of its meters taking turns give a moving average with a
/// new value at each reading.
struct Cpus {
    meters: Vec<System>,
    reads: usize,
}

impl Cpus {
    fn new(every: Duration) -> Result<Self, sysinfo::Error> {
        let turns = MINIMUM_CPU_UPDATE_INTERVAL.as_nanos().div_ceil(every.as_nanos().max(1)) + 1;
        Ok(Self { meters: (0..turns).map(|_| System::new()).collect::<Result<_, _>>()?, reads: 0 })
    }

    fn read(&mut self, ticks: &mut Ticks) {
        let turn = self.reads % self.meters.len();
        let is_first = self.reads < self.meters.len();
        self.reads += 1;
        let meter = &mut self.meters[turn];
        meter.refresh_cpu_usage();
        if is_first {
            return;
        }
        let usage = |percent: f32| [("usage", Value::Float(f64::from(percent)))];
        ticks.add(Resource::Cpu, "total", &usage(meter.global_cpu_usage()));
        for cpu in meter.cpus() {
            ticks.add(Resource::Cpu, cpu.name(), &usage(cpu.usage()));
        }
    }
}

fn read_memory(memory: &mut System, ticks: &mut Ticks) {
    memory.refresh_memory();
    let kinds =
        [("ram", memory.used_memory(), memory.total_memory()), ("swap", memory.used_swap(), memory.total_swap())];
    for (device, used, total) in kinds.into_iter().filter(|(_, _, total)| *total > 0) {
        ticks.add(Resource::Memory, device, &space(used, total));
    }
}

fn read_networks(networks: &mut Networks, ticks: &mut Ticks) {
    networks.refresh(true);
    for (name, network) in networks.iter() {
        let values = [("rx_bytes", Value::Uint(network.received())), ("tx_bytes", Value::Uint(network.transmitted()))];
        ticks.add(Resource::Network, &name.to_string_lossy(), &values);
    }
}

/// A disk is named by its first mount point; further mounts of it would count its bytes again.
fn read_disks(disks: &mut Disks, counted: &mut Vec<String>, ticks: &mut Ticks) {
    disks.refresh_specifics(true, DiskRefreshKind::nothing().with_storage().with_io_usage());
    let mut seen = Vec::new();
    let mut mounts = Vec::new();
    for disk in disks.iter().filter(|disk| disk.total_space() > 0) {
        if seen.contains(&disk.name()) {
            continue;
        }
        seen.push(disk.name());
        let mount = disk.mount_point().to_string_lossy().into_owned();
        let used = disk.total_space().saturating_sub(disk.available_space());
        let mut values = space(used, disk.total_space()).to_vec();
        // The first difference of a disk is against nothing: all bytes since the machine came up.
        if counted.contains(&mount) {
            let io = disk.usage();
            values.push(("read_bytes", Value::Uint(io.read_bytes)));
            values.push(("write_bytes", Value::Uint(io.written_bytes)));
        }
        ticks.add(Resource::Disk, &mount, &values);
        mounts.push(mount);
    }
    *counted = mounts;
}

fn space(used: u64, total: u64) -> [(&'static str, Value); 2] {
    [("usage", Value::Float(used as f64 / total as f64 * 100.0)), ("used_bytes", Value::Uint(used))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_reading_is_not_repeated_at_the_next_beat() {
        let mut pace = Pace::new(Duration::ZERO, Duration::from_millis(10));
        let mut reads = 0;
        for _ in 0..2 {
            pace.run(|| {
                std::thread::sleep(Duration::from_millis(20));
                reads += 1;
            });
        }
        assert_eq!(reads, 1);
    }

    #[test]
    fn a_half_used_disk_is_at_fifty_percent() {
        assert_eq!(space(2, 4), [("usage", Value::Float(50.0)), ("used_bytes", Value::Uint(2))]);
    }
}
